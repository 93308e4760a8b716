"""CloudFormation: IPv6 of a VPC, egress-only gateways, Fn::Cidr, budgets, a key's tags, AWS::NoValue in lists."""

from __future__ import annotations

from ipaddress import ip_network
from itertools import islice
from typing import Any

from moto.batch import models as batch
from moto.cloudformation import parsing
from moto.dynamodb.models import table as dynamodb
from moto.ec2.models import ec2_backends
from moto.ec2.models.subnets import Subnet
from moto.ec2.models.vpcs import VPC, VPCEndPoint
from moto.iam import models as iam
from moto.kms import models as kms
from moto.s3 import models as s3

from tests.support.fakeaws.options import ACCOUNT, api
from tests.support.fakeaws.stack_halves import _after, _before
from tests.support.fakeaws.stack_types import add_types


def change() -> None:
    """Change moto."""
    add_types(
        {
            "AWS::EC2::VPCCidrBlock": (_block, _nothing, "", None),
            "AWS::EC2::EgressOnlyInternetGateway": (
                _egress_only,
                lambda i, p: api("ec2").delete_egress_only_internet_gateway(EgressOnlyInternetGatewayId=i),
                "",
                None,
            ),
            # moto has these two, but loses IPv6, NAT gateways, and the association.
            "AWS::EC2::Route": (_route, _nothing, "", None),
            "AWS::EC2::SubnetRouteTableAssociation": (
                lambda n, p: str(api("ec2").associate_route_table(**p)["AssociationId"]),
                lambda i, p: api("ec2").disassociate_route_table(AssociationId=i),
                "",
                None,
            ),
            "AWS::Budgets::Budget": (
                _budget,
                lambda i, p: api("budgets").delete_budget(AccountId=ACCOUNT, BudgetName=i),
                "",
                None,
            ),
        }
    )
    _before(kms.Key, _key_tags)
    for method in ("create_from_cloudformation_json", "update_from_cloudformation_json"):
        _after(s3.FakeBucket, method, lambda bucket, p: _encryption(bucket.name, p))
    _after(dynamodb.Table, "create_from_cloudformation_json", lambda table, p: _time_to_live(table.name, p))
    _after(Subnet, "create_from_cloudformation_json", lambda subnet, p: _addresses(subnet.id, p))
    for queue in (batch.JobQueue, batch.ComputeEnvironment):
        _after(queue, "create_from_cloudformation_json", lambda it, p: _batch_tags(it.arn, p))
    attribute, clean = VPC.get_cfn_attribute, parsing.clean_json

    def get_cfn_attribute(self: Any, name: str) -> Any:
        if name == "Ipv6CidrBlocks":
            return _blocks(self.id)
        return attribute(self, name)

    def clean_json(value: Any, resources: Any) -> Any:
        if isinstance(value, dict) and "Fn::Cidr" in value:
            network, count, bits = (clean(clean_json(part, resources), resources) for part in value["Fn::Cidr"])
            block = ip_network(network)
            subnets = block.subnets(new_prefix=block.max_prefixlen - int(bits))
            return [str(subnet) for subnet in islice(subnets, int(count))]
        if isinstance(value, list):
            # AWS::NoValue in a list is no item.
            return [made for one in value if (made := clean_json(one, resources)) is not None]
        return clean(value, resources)

    VPC.get_cfn_attribute = get_cfn_attribute
    VPCEndPoint.delete = _delete_endpoint
    iam.ManagedPolicy.delete = _delete_policy
    # Its own calls of itself find it by this name.
    parsing.clean_json = clean_json


def _delete_endpoint(self: Any, *_: Any) -> None:
    """moto deletes a stack's resources in no order: the endpoint's route table may be gone already."""
    for backend in ec2_backends[ACCOUNT].values():
        backend.vpc_end_points.pop(self.id, None)


def _delete_policy(self: Any, *_: Any) -> None:
    """moto leaves it where it is."""
    api("iam").delete_policy(PolicyArn=self.arn)


def _blocks(vpc: str) -> list[str]:
    [found] = api("ec2").describe_vpcs(VpcIds=[vpc])["Vpcs"]
    return [
        one["Ipv6CidrBlock"]
        for one in found.get("Ipv6CidrBlockAssociationSet", [])
        if one["Ipv6CidrBlockState"]["State"] in ("associated", "associating")
    ]


def _block(name: str, p: dict[str, Any]) -> str:
    if _blocks(p["VpcId"]):
        return name
    api("ec2").associate_vpc_cidr_block(VpcId=p["VpcId"], AmazonProvidedIpv6CidrBlock=True)
    return name


def _nothing(name: str, p: dict[str, Any]) -> None:
    """It goes with what it belongs to."""


def _route(name: str, p: dict[str, Any]) -> str:
    api("ec2").create_route(**p)
    return name


def _egress_only(name: str, p: dict[str, Any]) -> str:
    made = api("ec2").create_egress_only_internet_gateway(VpcId=p["VpcId"])["EgressOnlyInternetGateway"]
    return str(made["EgressOnlyInternetGatewayId"])


def _budget(name: str, p: dict[str, Any]) -> str:
    given = p["Budget"]
    limit = {"Amount": str(given["BudgetLimit"]["Amount"]), "Unit": given["BudgetLimit"]["Unit"]}
    api("budgets").create_budget(AccountId=ACCOUNT, Budget={**given, "BudgetLimit": limit})
    return str(given["BudgetName"])


def _key_tags(p: dict[str, Any]) -> None:
    """The service's own names of them."""
    p["Tags"] = [{"TagKey": tag["Key"], "TagValue": tag["Value"]} for tag in p.get("Tags", []) if "Key" in tag]


def _encryption(name: str, p: dict[str, Any]) -> None:
    rules = p.get("BucketEncryption", {}).get("ServerSideEncryptionConfiguration", [])
    made = [
        {
            "ApplyServerSideEncryptionByDefault": rule["ServerSideEncryptionByDefault"],
            "BucketKeyEnabled": str(rule.get("BucketKeyEnabled", False)).lower() == "true",
        }
        for rule in rules
    ]
    if made:
        api("s3").put_bucket_encryption(Bucket=name, ServerSideEncryptionConfiguration={"Rules": made})


def _time_to_live(name: str, p: dict[str, Any]) -> None:
    if "TimeToLiveSpecification" in p:
        given = p["TimeToLiveSpecification"]
        made = {"AttributeName": given["AttributeName"], "Enabled": str(given["Enabled"]).lower() == "true"}
        api("dynamodb").update_time_to_live(TableName=name, TimeToLiveSpecification=made)
    if p.get("PointInTimeRecoverySpecification"):
        made = {"PointInTimeRecoveryEnabled": True}
        api("dynamodb").update_continuous_backups(TableName=name, PointInTimeRecoverySpecification=made)


def _addresses(subnet: str, p: dict[str, Any]) -> None:
    public = str(p.get("MapPublicIpOnLaunch", False)).lower() == "true"
    api("ec2").modify_subnet_attribute(SubnetId=subnet, MapPublicIpOnLaunch={"Value": public})


def _batch_tags(arn: str, p: dict[str, Any]) -> None:
    if p.get("Tags"):
        api("batch").tag_resource(resourceArn=arn, tags=p["Tags"])
