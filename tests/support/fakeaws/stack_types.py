"""CloudFormation: types that moto has not, made by their own service's calls."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError
from moto.core.common_models import CloudFormationModel
from moto.core.utils import pascal_to_camelcase, remap_nested_keys

from tests.support.fakeaws.options import api

_Put = Callable[[str, dict[str, Any]], str]
_Delete = Callable[[str, dict[str, Any]], Any]
_GONE = re.compile(r"NoSuch|NotFound|not exist|Not ?Found")


#: moto finds its types among the subclasses of one class, which live as long as somebody holds them.
_MADE: list[type] = []


def change() -> None:
    """Add the types to moto."""
    add_types(_TYPES)


def add_types(types: dict[str, tuple[_Put, _Delete, str, Callable[[str], str] | None]]) -> None:
    """Add types to moto: how they are made and removed, the property with their name, their ARN."""
    _MADE.extend(_model(kind, *how) for kind, how in types.items())


def camel(value: Any) -> Any:
    """Names of CloudFormation as those of the API."""
    return remap_nested_keys(value, pascal_to_camelcase)


def again(first: Callable[[], Any], second: Callable[[], Any], code: str) -> Any:
    """`first()`, or `second()` where the thing is there already."""
    try:
        return first()
    except ClientError as error:
        if code not in str(error):
            raise
        return second()


def tags(properties: dict[str, Any]) -> dict[str, Any]:
    """The member Tags, if there are any."""
    return {"Tags": properties["Tags"]} if properties.get("Tags") else {}


def without(properties: dict[str, Any], *names: str) -> dict[str, Any]:
    """The properties but these."""
    return {key: value for key, value in properties.items() if key not in names}


def _model(kind: str, put: _Put, delete: _Delete, name_property: str, arn: Callable[[str], str] | None) -> type:
    """A class for moto. `put` gives the physical id and may be repeated; `delete` may find it gone already."""

    class Model(CloudFormationModel):  # type: ignore[misc]
        __module__ = "moto.cloudformation.extra"  # moto keys its tracking of instances by the second part

        def __init__(self, physical_id: str, properties: dict[str, Any]) -> None:
            self.physical_resource_id, self.properties = physical_id, properties

        @staticmethod
        def cloudformation_name_type() -> str:
            return name_property

        @staticmethod
        def cloudformation_type() -> str:
            return kind

        @classmethod
        def has_cfn_attr(cls, attribute: str) -> bool:
            return attribute == "Arn" and arn is not None

        def get_cfn_attribute(self, attribute: str) -> str:
            assert arn is not None, attribute
            return arn(self.physical_resource_id)

        def is_created(self) -> bool:
            return True

        @classmethod
        def create_from_cloudformation_json(cls, given: str, body: dict[str, Any], *_: str, **__: Any) -> Any:
            return cls(put(given, body["Properties"]), body["Properties"])

        @classmethod
        def update_from_cloudformation_json(
            cls, original_resource: Any, new_resource_name: str, cloudformation_json: dict[str, Any], *_: str, **__: Any
        ) -> Any:
            properties = cloudformation_json["Properties"]
            return cls(put(properties.get(name_property, new_resource_name), properties), properties)

        def delete(self, *_: str) -> None:
            try:
                delete(self.physical_resource_id, self.properties)
            except ClientError as error:
                if not _GONE.search(str(error)):
                    raise

        @classmethod
        def delete_from_cloudformation_json(cls, physical_id: str, body: dict[str, Any], *_: str, **__: Any) -> None:
            delete(physical_id, body["Properties"])

    Model.__name__ = kind.replace(":", "_")
    return Model


def _secret(name: str, p: dict[str, Any]) -> str:
    manager = api("secretsmanager")
    given = {k: p[k] for k in ("KmsKeyId", "Description", "SecretString") if p.get(k)}
    made = again(
        lambda: manager.create_secret(Name=name, **given, **tags(p)),
        lambda: manager.update_secret(SecretId=name, **given),
        "Exists",
    )
    return str(made["ARN"])


def _trail(name: str, p: dict[str, Any]) -> str:
    trail = api("cloudtrail")
    kept = ("IsMultiRegionTrail", "EnableLogFileValidation", "IncludeGlobalServiceEvents", "KMSKeyId", "S3KeyPrefix")
    given = {"Name": name, "S3BucketName": p["S3BucketName"]} | {k: p[k] for k in kept if k in p}
    given.pop("KMSKeyId", None)
    again(lambda: trail.create_trail(**given), lambda: trail.update_trail(**given), "Already")
    if p.get("EventSelectors"):
        trail.put_event_selectors(TrailName=name, EventSelectors=p["EventSelectors"])
    if p.get("AdvancedEventSelectors"):
        trail.put_event_selectors(TrailName=name, AdvancedEventSelectors=p["AdvancedEventSelectors"])
    if str(p.get("IsLogging")).lower() == "true":
        trail.start_logging(Name=name)
    return name


def _schedule(name: str, p: dict[str, Any]) -> str:
    scheduler, given = api("scheduler"), {**p, "Name": name}
    again(lambda: scheduler.create_schedule(**given), lambda: scheduler.update_schedule(**given), "Conflict")
    return name


def _egress(name: str, p: dict[str, Any]) -> str:
    rule: dict[str, Any] = {"IpProtocol": str(p["IpProtocol"])}
    rule |= {key: int(p.get(key, -1)) for key in ("FromPort", "ToPort")}
    targets = {
        "CidrIp": ("IpRanges", "CidrIp"),
        "CidrIpv6": ("Ipv6Ranges", "CidrIpv6"),
        "DestinationPrefixListId": ("PrefixListIds", "PrefixListId"),
        "DestinationSecurityGroupId": ("UserIdGroupPairs", "GroupId"),
    }
    rule |= {plural: [{one: p[key]}] for key, (plural, one) in targets.items() if key in p}
    ec2 = api("ec2")
    again(lambda: ec2.authorize_security_group_egress(GroupId=p["GroupId"], IpPermissions=[rule]), dict, "Duplicate")
    return name


def _topic_policy(name: str, p: dict[str, Any]) -> str:
    for topic in p["Topics"]:
        text = json.dumps(p["PolicyDocument"])
        api("sns").set_topic_attributes(TopicArn=topic, AttributeName="Policy", AttributeValue=text)
    return name


def _bucket_policy(_name: str, p: dict[str, Any]) -> str:
    api("s3").put_bucket_policy(Bucket=p["Bucket"], Policy=json.dumps(p["PolicyDocument"]))
    return str(p["Bucket"])


def _secret_policy(_name: str, p: dict[str, Any]) -> str:
    text = json.dumps(p["ResourcePolicy"])
    api("secretsmanager").put_resource_policy(SecretId=p["SecretId"], ResourcePolicy=text)
    return str(p["SecretId"])


def _alarm(name: str, p: dict[str, Any]) -> str:
    api("cloudwatch").put_metric_alarm(**p, AlarmName=name)
    return name


def _alarm_arn(name: str) -> str:
    return str(api("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"][0]["AlarmArn"])


def _metric_filter(name: str, p: dict[str, Any]) -> str:
    made = [camel(one) for one in p["MetricTransformations"]]
    group, pattern = p["LogGroupName"], p["FilterPattern"]
    api("logs").put_metric_filter(
        logGroupName=group, filterName=name, filterPattern=pattern, metricTransformations=made
    )
    return name


def _subscription(_name: str, p: dict[str, Any]) -> str:
    made = api("sns").subscribe(
        TopicArn=p["TopicArn"], Protocol=p["Protocol"], Endpoint=p["Endpoint"], ReturnSubscriptionArn=True
    )
    return str(made["SubscriptionArn"])


def _dashboard(name: str, p: dict[str, Any]) -> str:
    json.loads(p["DashboardBody"])
    api("cloudwatch").put_dashboard(DashboardName=name, DashboardBody=p["DashboardBody"])
    return name


def _named(function: _Put, name_property: str) -> _Put:
    """The name is an argument, no property of the call."""
    return lambda name, p: function(name, without(p, name_property))


def _nothing(_id: str, _p: dict[str, Any]) -> None:
    """What ends with the thing that it belongs to."""


_TYPES: dict[str, tuple[_Put, _Delete, str, Callable[[str], str] | None]] = {
    "AWS::S3::BucketPolicy": (
        _bucket_policy,
        lambda i, p: api("s3").delete_bucket_policy(Bucket=p["Bucket"]),
        "",
        None,
    ),
    "AWS::SecretsManager::Secret": (
        _secret,
        lambda i, p: api("secretsmanager").delete_secret(SecretId=i, ForceDeleteWithoutRecovery=True),
        "Name",
        None,
    ),
    "AWS::SecretsManager::ResourcePolicy": (
        _secret_policy,
        lambda i, p: api("secretsmanager").delete_resource_policy(SecretId=p["SecretId"]),
        "",
        None,
    ),
    "AWS::CloudWatch::Alarm": (
        _named(_alarm, "AlarmName"),
        lambda i, p: api("cloudwatch").delete_alarms(AlarmNames=[i]),
        "AlarmName",
        _alarm_arn,
    ),
    "AWS::CloudWatch::Dashboard": (
        _named(_dashboard, "DashboardName"),
        lambda i, p: api("cloudwatch").delete_dashboards(DashboardNames=[i]),
        "DashboardName",
        None,
    ),
    "AWS::CloudTrail::Trail": (
        _trail,
        lambda i, p: api("cloudtrail").delete_trail(Name=i),
        "TrailName",
        lambda name: str(api("cloudtrail").get_trail(Name=name)["Trail"]["TrailARN"]),
    ),
    "AWS::Logs::MetricFilter": (
        _metric_filter,
        lambda i, p: api("logs").delete_metric_filter(logGroupName=p["LogGroupName"], filterName=i),
        "FilterName",
        None,
    ),
    "AWS::SNS::Subscription": (
        _subscription,
        lambda i, p: api("sns").unsubscribe(SubscriptionArn=i),
        "",
        None,
    ),
    "AWS::SNS::TopicPolicy": (_topic_policy, _nothing, "", None),
    "AWS::Scheduler::Schedule": (
        _schedule,
        lambda i, p: api("scheduler").delete_schedule(Name=i, **_group(p)),
        "Name",
        lambda name: str(api("scheduler").get_schedule(Name=name)["Arn"]),
    ),
    "AWS::EC2::SecurityGroupEgress": (_egress, _nothing, "", None),
}


def _group(p: dict[str, Any]) -> dict[str, str]:
    return {"GroupName": p["GroupName"]} if "GroupName" in p else {}
