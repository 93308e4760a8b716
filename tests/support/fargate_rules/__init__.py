"""What Fargate and AWS Batch on Fargate refuse in a definition, and cfn-lint lets pass.

`python -m tests.support.fargate_rules TEMPLATE` lists what is wrong in a CloudFormation template. The AWS double uses
the same rules for what is registered with it, so a template is judged as the deployment would judge it.

Sources: the ECS developer guide ("Task definition differences for Fargate", "Fargate security considerations",
"Container dependency"), the Batch user guide ("Job definition parameters", "Automated job retries"), and the members
that botocore's models of both services know. Templates are the business of the module `template`, which loads cfn-lint.
"""

from tests.support.fargate_rules.compute import compute_faults
from tests.support.fargate_rules.job import job_definition_faults
from tests.support.fargate_rules.task import task_definition_faults

__all__ = ["compute_faults", "job_definition_faults", "task_definition_faults"]
