"""A stack in the emulator, as ci/emulated/check.py uses it: its deployment, its API, its functions, its queues and its table."""
import json
import os
import subprocess
import time
import urllib.error
import urllib.request

import boto3
from botocore.config import Config

ENDPOINT = os.environ["AWS_ENDPOINT_URL"]


def client(service):
    return boto3.client(service, config=Config(retries={"max_attempts": 2}, read_timeout=120))


cloudformation, dynamodb, sqs = client("cloudformation"), client("dynamodb"), client("sqs")
lambdas, gateway = client("lambda"), client("apigatewayv2")


class Stack:
    """A deployed stack."""

    def __init__(self, name, log):
        self.name, self.log, self.outputs, self.resources = name, log, {}, {}

    def sam(self, *arguments):
        """Runs a SAM command for the stack; returns whether it succeeded, what it printed and the seconds it took."""
        started = time.time()
        command = ["sam", *arguments, "--stack-name", self.name]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        with open(self.log, "a", encoding="utf-8") as log:
            log.write(f"$ {' '.join(command)}\n{done.stdout}\n")
        return done.returncode == 0, done.stdout, f"{time.time() - started:.0f} s"

    def deploy(self, **parameters):
        """Deploys what `sam build` made; returns as `sam` does."""
        arguments = ["deploy", "--no-confirm-changeset", "--no-fail-on-empty-changeset", "--no-progressbar"]
        if parameters:
            arguments += ["--parameter-overrides", *(f"{name}={value}" for name, value in parameters.items())]
        succeeded, printed, took = self.sam(*arguments)
        if succeeded:
            self.read()
            self.mend()
        return succeeded, printed, took

    def delete(self):
        return self.sam("delete", "--no-prompts", "--region", os.environ["AWS_REGION"])

    def delete_at_once(self):
        """Deletes the stack without `sam`, which looks only every half minute whether it is gone."""
        cloudformation.delete_stack(StackName=self.name)
        until = time.time() + 60
        while time.time() < until and exists(self.queue("Input")):
            time.sleep(0.5)

    def failure(self):
        """Returns why the last deployment failed, as CloudFormation tells it."""
        events = cloudformation.describe_stack_events(StackName=self.name)["StackEvents"]
        return next((event["ResourceStatusReason"] for event in events if "_FAILED" in event["ResourceStatus"]), "")

    def read(self):
        described = cloudformation.describe_stacks(StackName=self.name)["Stacks"][0]
        self.outputs = {output["OutputKey"]: output["OutputValue"] for output in described["Outputs"]}
        listed = cloudformation.describe_stack_resources(StackName=self.name)["StackResources"]
        self.resources = {resource["LogicalResourceId"]: resource["PhysicalResourceId"] for resource in listed}

    def mend(self):
        """Makes up for two faults of the emulator: it does not import the API's routes from its definition, and it keeps the
        number `MaximumConcurrency` as a string, of which its poller dies."""
        for mapping in self.mappings():
            limit = mapping.get("ScalingConfig", {}).get("MaximumConcurrency")
            if limit:
                lambdas.update_event_source_mapping(
                    UUID=mapping["UUID"], ScalingConfig={"MaximumConcurrency": int(limit)}
                )
        api = self.resources["Api"]
        if gateway.get_routes(ApiId=api)["Items"]:
            return
        template = cloudformation.get_template(StackName=self.name, TemplateStage="Processed")["TemplateBody"]
        template = json.loads(template) if isinstance(template, str) else json.loads(json.dumps(template))
        function = lambdas.get_function(FunctionName=self.ingest)["Configuration"]["FunctionArn"]
        integration = gateway.create_integration(
            ApiId=api, IntegrationType="AWS_PROXY", IntegrationUri=function, PayloadFormatVersion="2.0"
        )["IntegrationId"]
        for path, methods in template["Resources"]["Api"]["Properties"]["Body"]["paths"].items():
            for method, operation in methods.items():
                method = "ANY" if method == "x-amazon-apigateway-any-method" else method.upper()
                auth = {"AuthorizationType": "AWS_IAM"} if operation.get("security") else {}
                route = f"{method} {path}"
                gateway.create_route(ApiId=api, RouteKey=route, Target=f"integrations/{integration}", **auth)

    @property
    def ingest(self):
        return self.outputs["IngestFunctionName"]

    @property
    def table(self):
        return self.outputs["TableName"]

    def queue(self, name):
        return self.outputs[f"{name}QueueUrl"]

    def mappings(self):
        return lambdas.list_event_source_mappings(FunctionName=self.ingest)["EventSourceMappings"]

    def environment(self, function="IngestFunction"):
        configuration = lambdas.get_function_configuration(FunctionName=self.resources[function])
        return configuration["Environment"]["Variables"]

    def http(self, method, path, body=None, media_type="application/json"):
        """Sends a request without credentials; returns the status and the answer."""
        url = f"{ENDPOINT}/_aws/execute-api/{self.resources['Api']}/$default{path}"
        data = None if body is None else body.encode()
        request = urllib.request.Request(url, method=method, data=data, headers={"content-type": media_type})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                status, text = answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read().decode()
        try:
            return status, json.loads(text)
        except ValueError:
            return status, text

    def invoke(self, function, payload):
        answer = lambdas.invoke(FunctionName=function, Payload=json.dumps(payload))
        return json.loads(answer["Payload"].read() or b"null")

    def items(self):
        return dynamodb.scan(TableName=self.table)["Items"]


def send(queue, bodies):
    entries = [{"Id": str(at), "MessageBody": body} for at, body in enumerate(bodies)]
    sqs.send_message_batch(QueueUrl=queue, Entries=entries)


def attribute(queue, name):
    return int(sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=[name])["Attributes"][name])


def waiting(queue):
    """Returns how many messages a queue holds, those in delivery included."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    return sum(attribute(queue, name) for name in names)


def drain(queue, seconds, enough):
    """Takes messages from a queue until their lines are enough, or the time is over; returns the lines."""
    lines, until = [], time.time() + seconds
    while time.time() < until and not enough(lines):
        received = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=1)
        for message in received.get("Messages", []):
            lines += [json.loads(line) for line in message["Body"].split("\n")]
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    return lines


def exists(queue):
    try:
        attribute(queue, "ApproximateNumberOfMessages")
        return True
    except sqs.exceptions.QueueDoesNotExist:
        return False


def rule(name):
    return client("events").describe_rule(Name=name)
