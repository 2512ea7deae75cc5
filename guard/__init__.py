"""When a lab ends: inventory, order, removal; one algorithm for the account, `fab teardown` and `fab audit`.

The account runs the text of these files, joined into one Lambda; hence the standard library and boto3 only.
"""
