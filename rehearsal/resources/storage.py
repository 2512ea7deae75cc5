"""Storage: FSx for Lustre, its links to S3, buckets and their policies."""

import json
from collections.abc import Mapping
from typing import Any

from rehearsal.failure import Refused
from rehearsal.resources.handler import Call, Handler

Given = Mapping[str, Any]
_RULE = ("Id", "Status", "Prefix", "ExpirationInDays", "AbortIncompleteMultipartUpload", "NoncurrentVersionExpiration")


class FileSystem(Handler):
    type = "AWS::FSx::FileSystem"
    replaces = ("FileSystemType", "KmsKeyId", "SecurityGroupIds", "SubnetIds")
    fixed = ("FileSystemTypeVersion", "LustreConfiguration", "StorageCapacity", "StorageType")
    updates = ("Tags",)
    attributes = ("DNSName", "Id", "LustreMountName", "ResourceARN")

    def create(self, call: Call, given: Given) -> str:
        return str(call.api("fsx", "create_file_system", **given)["FileSystem"]["FileSystemId"])

    def complete(self, call: Call, physical_id: str, given: Given) -> None:
        def available() -> bool:
            found = _file_system(call, physical_id)
            if found["Lifecycle"] in ("FAILED", "MISCONFIGURED"):
                why = found.get("FailureDetails", {}).get("Message", found["Lifecycle"])
                raise Refused(f"{self.type}: {physical_id} did not stabilize: {why}")
            return bool(found["Lifecycle"] == "AVAILABLE")

        call.wait(f"creation of {physical_id}", available)

    def read(self, call: Call, physical_id: str, given: Given) -> dict[str, Any]:
        found = _file_system(call, physical_id)
        mount = found.get("LustreConfiguration", {}).get("MountName", "")
        return {
            "DNSName": found["DNSName"],
            "Id": physical_id,
            "LustreMountName": mount,
            "ResourceARN": found["ResourceARN"],
        }

    def update(self, call: Call, physical_id: str, old: Given, new: Given) -> None:
        _retag_fsx(call, call.attributes["ResourceARN"], old, new)

    def delete(self, call: Call, physical_id: str, given: Given) -> None:
        call.remove("fsx", "delete_file_system", FileSystemId=physical_id)
        call.wait_gone(
            f"deletion of {physical_id}",
            lambda: not call.api("fsx", "describe_file_systems", FileSystemIds=[physical_id])["FileSystems"],
        )


class RepositoryAssociation(Handler):
    type = "AWS::FSx::DataRepositoryAssociation"
    replaces = ("BatchImportMetaDataOnCreate", "DataRepositoryPath", "FileSystemId", "FileSystemPath")
    fixed = ("ImportedFileChunkSize", "S3")
    updates = ("Tags",)
    attributes = ("AssociationId", "ResourceARN")

    def create(self, call: Call, given: Given) -> str:
        return str(call.api("fsx", "create_data_repository_association", **given)["Association"]["AssociationId"])

    def complete(self, call: Call, physical_id: str, given: Given) -> None:
        def available() -> bool:
            found = self._find(call, physical_id)[0]
            if found["Lifecycle"] in ("FAILED", "MISCONFIGURED"):
                why = found.get("FailureDetails", {}).get("Message", found["Lifecycle"])
                raise Refused(f"{self.type}: {physical_id} did not stabilize: {why}")
            return bool(found["Lifecycle"] == "AVAILABLE")

        call.wait(f"creation of {physical_id}", available)

    def read(self, call: Call, physical_id: str, given: Given) -> dict[str, Any]:
        return {"AssociationId": physical_id, "ResourceARN": self._find(call, physical_id)[0]["ResourceARN"]}

    def update(self, call: Call, physical_id: str, old: Given, new: Given) -> None:
        _retag_fsx(call, call.attributes["ResourceARN"], old, new)

    def delete(self, call: Call, physical_id: str, given: Given) -> None:
        call.remove("fsx", "delete_data_repository_association", AssociationId=physical_id,
                    DeleteDataInFileSystem=False)  # fmt: skip
        call.wait_gone(f"deletion of {physical_id}", lambda: not self._find(call, physical_id))

    @staticmethod
    def _find(call: Call, physical_id: str) -> list[dict[str, Any]]:
        answer = call.api("fsx", "describe_data_repository_associations", AssociationIds=[physical_id])
        found: list[dict[str, Any]] = answer["Associations"]
        return found


class Bucket(Handler):
    type = "AWS::S3::Bucket"
    replaces = ("BucketName",)
    updates = (
        "BucketEncryption", "LifecycleConfiguration", "OwnershipControls", "PublicAccessBlockConfiguration", "Tags",
        "VersioningConfiguration",
    )  # fmt: skip
    attributes = ("Arn", "DomainName", "DualStackDomainName", "RegionalDomainName")
    named_by = "BucketName"

    def create(self, call: Call, given: Given) -> str:
        name = given.get("BucketName") or call.name(63, True)
        where = None if call.region == "us-east-1" else {"LocationConstraint": call.region}
        call.api("s3", "create_bucket", Bucket=name, CreateBucketConfiguration=where)
        return str(name)

    def complete(self, call: Call, physical_id: str, given: Given) -> None:
        if "BucketEncryption" in given:
            encryption = {"Rules": self._encryption(given["BucketEncryption"])}
            call.api("s3", "put_bucket_encryption", Bucket=physical_id,
                     ServerSideEncryptionConfiguration=encryption)  # fmt: skip
        if "LifecycleConfiguration" in given:
            rules = [self._lifecycle(rule) for rule in given["LifecycleConfiguration"].get("Rules", ())]
            call.api("s3", "put_bucket_lifecycle_configuration", Bucket=physical_id,
                     LifecycleConfiguration={"Rules": rules})  # fmt: skip
        if "OwnershipControls" in given:
            call.api("s3", "put_bucket_ownership_controls", Bucket=physical_id,
                     OwnershipControls=given["OwnershipControls"])  # fmt: skip
        if "PublicAccessBlockConfiguration" in given:
            call.api("s3", "put_public_access_block", Bucket=physical_id,
                     PublicAccessBlockConfiguration=given["PublicAccessBlockConfiguration"])  # fmt: skip
        if "VersioningConfiguration" in given:
            call.api("s3", "put_bucket_versioning", Bucket=physical_id,
                     VersioningConfiguration=given["VersioningConfiguration"])  # fmt: skip
        if given.get("Tags"):
            call.api("s3", "put_bucket_tagging", Bucket=physical_id, Tagging={"TagSet": given["Tags"]})

    def read(self, call: Call, physical_id: str, given: Given) -> dict[str, Any]:
        return {
            "Arn": f"arn:{call.partition}:s3:::{physical_id}",
            "DomainName": f"{physical_id}.s3.amazonaws.com",
            "DualStackDomainName": f"{physical_id}.s3.dualstack.{call.region}.amazonaws.com",
            "RegionalDomainName": f"{physical_id}.s3.{call.region}.amazonaws.com",
        }

    def update(self, call: Call, physical_id: str, old: Given, new: Given) -> None:
        for name, operation in (
            ("BucketEncryption", "delete_bucket_encryption"),
            ("LifecycleConfiguration", "delete_bucket_lifecycle"),
            ("OwnershipControls", "delete_bucket_ownership_controls"),
            ("PublicAccessBlockConfiguration", "delete_public_access_block"),
            ("Tags", "delete_bucket_tagging"),
        ):
            if old.get(name) and not new.get(name):
                call.remove("s3", operation, Bucket=physical_id)
        suspended = {"VersioningConfiguration": {"Status": "Suspended"}}
        self.complete(call, physical_id, {**(suspended if "VersioningConfiguration" in old else {}), **new})

    def delete(self, call: Call, physical_id: str, given: Given) -> None:
        call.remove("s3", "delete_bucket", Bucket=physical_id)  # a bucket that holds something stays: BucketNotEmpty

    def _encryption(self, given: Given) -> list[dict[str, Any]]:
        rules = []
        for rule in given.get("ServerSideEncryptionConfiguration", ()):
            self._known("BucketEncryption", rule, ("ServerSideEncryptionByDefault", "BucketKeyEnabled"))
            default = dict(rule.get("ServerSideEncryptionByDefault") or {})
            self._known("BucketEncryption", default, ("SSEAlgorithm", "KMSMasterKeyID"))
            rules.append({
                "ApplyServerSideEncryptionByDefault": default,
                **({"BucketKeyEnabled": rule["BucketKeyEnabled"]} if "BucketKeyEnabled" in rule else {}),
            })  # fmt: skip
        return rules

    def _lifecycle(self, rule: Given) -> dict[str, Any]:
        self._known("LifecycleConfiguration", rule, _RULE)
        wanted: dict[str, Any] = {"Status": rule["Status"], "Filter": {"Prefix": rule.get("Prefix", "")}}
        if "Id" in rule:
            wanted["ID"] = rule["Id"]
        if "ExpirationInDays" in rule:
            wanted["Expiration"] = {"Days": rule["ExpirationInDays"]}
        for name in ("AbortIncompleteMultipartUpload", "NoncurrentVersionExpiration"):
            if name in rule:
                wanted[name] = rule[name]
        return wanted

    def _known(self, name: str, given: Given, known: tuple[str, ...]) -> None:
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise Refused(f"{self.type}: property {name}/{unknown[0]} is not rehearsed")


class BucketPolicy(Handler):
    type = "AWS::S3::BucketPolicy"
    replaces = ("Bucket",)
    updates = ("PolicyDocument",)

    def create(self, call: Call, given: Given) -> str:
        self.update(call, given["Bucket"], {}, given)
        return str(given["Bucket"])

    def update(self, call: Call, physical_id: str, old: Given, new: Given) -> None:
        call.api("s3", "put_bucket_policy", Bucket=physical_id, Policy=json.dumps(new.get("PolicyDocument")))

    def delete(self, call: Call, physical_id: str, given: Given) -> None:
        call.remove("s3", "delete_bucket_policy", Bucket=physical_id)


def _file_system(call: Call, physical_id: str) -> dict[str, Any]:
    found: dict[str, Any] = call.api("fsx", "describe_file_systems", FileSystemIds=[physical_id])["FileSystems"][0]
    return found


def _retag_fsx(call: Call, arn: str, old: Given, new: Given) -> None:
    before, after = ({tag["Key"]: tag["Value"] for tag in given.get("Tags") or ()} for given in (old, new))
    dropped = [key for key in before if key not in after]
    if dropped:
        call.api("fsx", "untag_resource", ResourceARN=arn, TagKeys=dropped)
    if after != before:
        call.api("fsx", "tag_resource", ResourceARN=arn, Tags=new["Tags"])


HANDLERS = (FileSystem, RepositoryAssociation, Bucket, BucketPolicy)
