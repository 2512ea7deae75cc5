"""Where a lab runs: one CloudFormation stack per lab, and GuardStack, which all labs share."""
