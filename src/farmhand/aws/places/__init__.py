"""The places `fargate` and `aws-batch`: orders go through the bucket, results come back through it."""
