"""Imported by the server that commands are forked from: boto3, and the models of the services that they call."""

import boto3

from tests.support import aws_models

aws_models.read_once()
# boto3's sessions look into one directory more than botocore's.
_session = boto3.Session()._session
_session.get_component("endpoint_resolver")
for _service in ("batch", "cloudformation", "dynamodb", "ec2", "ecr", "ecs", "logs", "s3", "secretsmanager", "sts"):
    _session.get_service_model(_service)
    _session.get_component("data_loader").load_service_model(_service, "endpoint-rule-set-1")
