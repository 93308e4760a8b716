"""Tells by SNS before credentials end. Handler: expiry.handler. Environment: TABLE, TOPIC, ENVIRONMENT.

It reads the items credential#ENVIRONMENT#KIND and the tags of what they name, never a credential. A step is told by
who sets its mark in the item, so once. A new credential replaces the item.
"""

import os
import time
from datetime import datetime

import boto3

STEPS = (30, 14, 7, 3, 1, 0)  # days left
NEVER = 3650


def handler(event, context, clock=time.time):
    env, topic = os.environ["ENVIRONMENT"], os.environ["TOPIC"]
    db = boto3.client("dynamodb")
    bad, left, told = 0, [NEVER], 0
    for item in rows(db, f"credential#{env}#"):
        try:
            kind, ends = item["pk"]["S"].split("#")[2], end_of(item)
            place, _ = item["place"]["S"], item["fingerprint"]["S"]
        except Exception as error:  # one bad row must not hide the others
            print("bad row", item["pk"], repr(error))
            bad += 1
            continue
        days = NEVER if ends is None else (ends - clock()) / 86400
        steps = STEPS if kind != "login" else (0,)  # that lasts for hours: only its end is news
        if kind != "login":
            left.append(days)
        news = {"notified_refused": (0, "was refused by the API")} if "refused" in item else {}
        if due := [step for step in steps if days <= step]:
            when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(ends))
            news["notified"] = (min(due), f"{'ended' if days <= 0 else 'ends'} on {when}")
        for mark, (step, text) in news.items():
            text = (
                f"The {kind} of farmhand {env} ({place}) {text}. Renew it: farmhand cloud credential put --kind {kind}"
            )
            told += tell(db, topic, item, mark, step, text)
    sizes = {"CredentialDaysLeft": min(left), "CredentialRowsBad": bad}
    where = [{"Name": "Environment", "Value": env}]
    data = [{"MetricName": name, "Value": size, "Dimensions": where} for name, size in sizes.items()]
    boto3.client("cloudwatch").put_metric_data(Namespace="Farmhand", MetricData=data)
    return {"told": told, "bad": bad}


def rows(db, prefix):
    only = {"FilterExpression": "begins_with(pk, :p)", "ExpressionAttributeValues": {":p": {"S": prefix}}}
    for page in db.get_paginator("scan").paginate(TableName=os.environ["TABLE"], **only):
        yield from page["Items"]


def end_of(item):
    """The earlier of item and tag, in Unix seconds; None if neither knows."""
    found = [float(item["expires_at"]["N"])] if "expires_at" in item else []
    scheme, _, name = item["place"]["S"].partition(":")
    tags = []
    if scheme == "secretsmanager":
        tags = boto3.client("secretsmanager").describe_secret(SecretId=name).get("Tags", [])
    if scheme == "s3":
        bucket, _, key = name[2:].partition("/")
        tags = boto3.client("s3").get_object_tagging(Bucket=bucket, Key=key)["TagSet"]
    for tag in tags:
        if tag["Key"] == "farmhand:expires-at":
            found.append(datetime.fromisoformat(tag["Value"].replace("Z", "+00:00")).timestamp())
    return min(found, default=None)


def tell(db, topic, item, mark, step, text):
    values = {":s": {"N": str(step)}, ":f": item["fingerprint"]}
    new = f"fingerprint = :f AND (attribute_not_exists({mark}) OR {mark} > :s)"

    def update(change, condition, values):
        given = {"UpdateExpression": change, "ConditionExpression": condition, "ExpressionAttributeValues": values}
        db.update_item(TableName=os.environ["TABLE"], Key={"pk": item["pk"]}, **given)

    try:
        update(f"SET {mark} = :s", new, values)
    except db.exceptions.ConditionalCheckFailedException:
        return 0  # told before, or replaced meanwhile
    try:
        boto3.client("sns").publish(TopicArn=topic, Subject="farmhand: a credential", Message=text)
    except Exception:  # the next run tells it
        old = {":o": item[mark]} if mark in item else {}
        update(f"SET {mark} = :o" if old else f"REMOVE {mark}", f"{mark} = :s", {":s": values[":s"], **old})
        raise
    return 1
