"""Importing this package switches CDK's own validation off, which takes seconds a synthesis; one test has it on.

It must happen before anything imports aws_cdk, for that starts the process that reads the variable.
"""

import os

os.environ["CDK_VALIDATION"] = "false"
os.environ["JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION"] = "20"
