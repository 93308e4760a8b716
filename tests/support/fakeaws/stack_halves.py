"""CloudFormation: types that moto reads by half, or does not delete."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from moto.batch import models as batch
from moto.batch.exceptions import ClientException
from moto.ec2.models.elastic_network_interfaces import NetworkInterface
from moto.ec2.models.route_tables import RouteTable
from moto.ec2.models.vpcs import VPCEndPoint
from moto.ecs import models as ecs
from moto.iam import models as iam
from moto.kms import models as kms
from moto.logs import models as logs
from moto.s3 import models as s3

from tests.support.fakeaws.options import ACCOUNT, OPTIONS, api
from tests.support.fakeaws.stack_types import again, camel, without
from tests.support.fargate_rules import compute_faults

_CREATE, _UPDATE = "create_from_cloudformation_json", "update_from_cloudformation_json"


def change() -> None:
    """Change moto."""
    for method in (_CREATE, _UPDATE):
        _after(s3.FakeBucket, method, lambda bucket, p: _bucket_rest(bucket.name, p))
    _after(ecs.Cluster, _CREATE, lambda cluster, p: _cluster_rest(cluster, p))
    _after(ecs.Cluster, _UPDATE, lambda cluster, p: _cluster_rest(cluster, p))
    _before(kms.Key, _key_policy_as_text)
    _before(iam.Role, _role_policies_as_text)
    _before(batch.ComputeEnvironment, _refuse_ec2)
    _before(batch.ComputeEnvironment, _service_role)
    for cls in (batch.ComputeEnvironment, batch.JobQueue):
        _before(cls, lambda p: p.setdefault("State", "ENABLED"))
    _registered(ecs.TaskDefinition, _task_definition)
    _registered(batch.JobDefinition, _job_definition)
    setattr(logs.LogGroup, _UPDATE, classmethod(_log_group_update))
    NetworkInterface.private_dns_name = "ip-10-0-0-1.ec2.internal"
    _deletes()


def _deletes() -> None:
    def deletes(cls: Any, call: Callable[[Any], Any]) -> None:
        cls.delete = lambda self, *_: (call(self), None)[1]

    deletes(logs.LogGroup, lambda it: api("logs").delete_log_group(logGroupName=it.name))
    deletes(RouteTable, _delete_route_table)
    deletes(VPCEndPoint, lambda it: api("ec2").delete_vpc_endpoints(VpcEndpointIds=[it.id]))
    deletes(ecs.Cluster, lambda it: api("ecs").delete_cluster(cluster=it.arn))
    deletes(ecs.TaskDefinition, lambda it: api("ecs").deregister_task_definition(taskDefinition=it.arn))
    deletes(batch.JobDefinition, lambda it: api("batch").deregister_job_definition(jobDefinition=it.arn))
    deletes(batch.JobQueue, lambda it: _off_and_delete("job_queue", "jobQueue", it.arn))
    deletes(batch.ComputeEnvironment, lambda it: _off_and_delete("compute_environment", "computeEnvironment", it.arn))
    deletes(kms.Key, lambda it: api("kms").schedule_key_deletion(KeyId=it.id, PendingWindowInDays=7))


def _delete_route_table(table: Any) -> None:
    for association in list(table.associations):
        api("ec2").disassociate_route_table(AssociationId=association)
    api("ec2").delete_route_table(RouteTableId=table.id)


def _off_and_delete(kind: str, key: str, arn: str) -> None:
    """Batch deletes only what is disabled."""
    getattr(api("batch"), f"update_{kind}")(**{key: arn, "state": "DISABLED"})
    getattr(api("batch"), f"delete_{kind}")(**{key: arn})


def _after(cls: Any, method: str, then: Callable[[Any, dict[str, Any]], Any]) -> None:
    """Let `then` have the result of a classmethod, and the properties."""
    inner = getattr(cls, method).__func__

    def outer(c: Any, *args: Any, **kwargs: Any) -> Any:
        made = inner(c, *args, **kwargs)
        body = kwargs.get("cloudformation_json") or args[-3 if len(args) > 3 else 1]
        then(made, body["Properties"])
        return made

    setattr(cls, method, classmethod(outer))


def _before(cls: Any, change_properties: Callable[[dict[str, Any]], Any]) -> None:
    """Let `change_properties` have the properties before moto's own code."""
    inner = getattr(cls, _CREATE).__func__

    def outer(c: Any, name: str, body: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        change_properties(body["Properties"])
        return inner(c, name, body, *args, **kwargs)

    setattr(cls, _CREATE, classmethod(outer))


def _registered(cls: Any, register: Callable[[str, dict[str, Any]], Any]) -> None:
    """Make it by its service's own call, so that no property is dropped; an update registers the next revision."""

    def create(_c: Any, name: str, body: dict[str, Any], *_: Any, **__: Any) -> Any:
        return register(name, body["Properties"])

    def update(
        _c: Any, original_resource: Any, new_resource_name: str, cloudformation_json: Any, *_: Any, **__: Any
    ) -> Any:
        name = getattr(original_resource, "family", getattr(original_resource, "name", new_resource_name))
        return register(name, cloudformation_json["Properties"])

    setattr(cls, _CREATE, classmethod(create))
    setattr(cls, _UPDATE, classmethod(update))


def _bucket_rest(name: str, p: dict[str, Any]) -> None:
    client = api("s3")
    calls = {
        "PublicAccessBlockConfiguration": client.put_public_access_block,
        "OwnershipControls": client.put_bucket_ownership_controls,
        "VersioningConfiguration": client.put_bucket_versioning,
    }
    for prop, call in calls.items():
        if prop in p:
            call(Bucket=name, **{prop: p[prop]})
    if p.get("Tags"):
        client.put_bucket_tagging(Bucket=name, Tagging={"TagSet": p["Tags"]})
    if rules := [_lifecycle(rule) for rule in p.get("LifecycleConfiguration", {}).get("Rules", [])]:
        client.put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": rules})


def _lifecycle(rule: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {"ID": rule.get("Id", "rule"), "Status": rule["Status"]}
    made["Filter"] = {"Prefix": rule.get("Prefix", "")}
    if "NoncurrentVersionExpiration" in rule:
        days = int(rule["NoncurrentVersionExpiration"]["NoncurrentDays"])
        made["NoncurrentVersionExpiration"] = {"NoncurrentDays": days}
    if "AbortIncompleteMultipartUpload" in rule:
        days = int(rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"])
        made["AbortIncompleteMultipartUpload"] = {"DaysAfterInitiation": days}
    if "ExpirationInDays" in rule:
        made["Expiration"] = {"Days": int(rule["ExpirationInDays"])}
    return made


def _cluster_rest(cluster: Any, p: dict[str, Any]) -> None:
    cluster.capacity_providers = p.get("CapacityProviders")
    cluster.default_capacity_provider_strategy = camel(p.get("DefaultCapacityProviderStrategy") or []) or None
    cluster.tags = camel(p.get("Tags") or []) or None
    if "ClusterSettings" in p:
        cluster.settings = camel(p["ClusterSettings"])
    if "Configuration" in p:
        cluster.configuration = camel(p["Configuration"])


def _key_policy_as_text(p: dict[str, Any]) -> None:
    """moto keeps it as a dict and stumbles over it later."""
    if isinstance(p.get("KeyPolicy"), dict):
        p["KeyPolicy"] = json.dumps(p["KeyPolicy"])


def _role_policies_as_text(p: dict[str, Any]) -> None:
    for policy in p.get("Policies", []):
        if isinstance(policy["PolicyDocument"], dict):
            policy["PolicyDocument"] = json.dumps(policy["PolicyDocument"])


def _refuse_ec2(p: dict[str, Any]) -> None:
    if faults := compute_faults(camel(p)):
        raise ClientException("; ".join(faults))


def _service_role(p: dict[str, Any]) -> None:
    """Where none is named AWS takes its own service-linked role; moto wants one."""
    if not p.get("ServiceRole"):
        trust, client, name = (
            json.dumps({"Version": "2012-10-17", "Statement": []}),
            api("iam"),
            "AWSServiceRoleForBatch",
        )
        role = again(
            lambda: client.create_role(RoleName=name, AssumeRolePolicyDocument=trust),
            lambda: client.get_role(RoleName=name),
            "Exists",
        )
        p["ServiceRole"] = role["Role"]["Arn"]


def _task_definition(name: str, p: dict[str, Any]) -> Any:
    given = {"family": name} | camel(without(p, "Tags")) | _lower_tags(p)
    _keep_options(given.get("containerDefinitions") or [], p.get("ContainerDefinitions") or [])
    arn = api("ecs").register_task_definition(**given)["taskDefinition"]["taskDefinitionArn"]
    return ecs.ecs_backends[ACCOUNT][OPTIONS.region].describe_task_definition(arn)


def _job_definition(name: str, p: dict[str, Any]) -> Any:
    given = {**camel(without(p, "Tags", "Parameters")), "jobDefinitionName": p.get("JobDefinitionName", name)}
    given |= {key.lower(): p[key] for key in ("Tags", "Parameters") if p.get(key)}  # their keys are data
    if "ecsProperties" in given:
        for made, said in zip(
            given["ecsProperties"]["taskProperties"], p["EcsProperties"]["TaskProperties"], strict=True
        ):
            _keep_options(made["containers"], said["Containers"])
    if "containerProperties" in given:
        _keep_options([given["containerProperties"]], [p["ContainerProperties"]])
    arn = api("batch").register_job_definition(**given)["jobDefinitionArn"]
    return batch.batch_backends[ACCOUNT][OPTIONS.region]._job_definitions[arn]


def _lower_tags(p: dict[str, Any]) -> dict[str, Any]:
    return {"tags": [{"key": tag["Key"], "value": tag["Value"]} for tag in p["Tags"]]} if p.get("Tags") else {}


def _keep_options(made: list[dict[str, Any]], said: list[dict[str, Any]]) -> None:
    """The keys of a map are data, no names of members."""
    for container, given in zip(made, said, strict=True):
        if "LogConfiguration" in given:
            container["logConfiguration"]["options"] = given["LogConfiguration"].get("Options", {})


def _log_group_update(
    _c: Any, original_resource: Any, new_resource_name: str, cloudformation_json: Any, *_: Any, **__: Any
) -> Any:
    if days := cloudformation_json["Properties"].get("RetentionInDays"):
        api("logs").put_retention_policy(logGroupName=original_resource.name, retentionInDays=int(days))
    return original_resource
