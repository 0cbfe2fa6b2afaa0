"""Writes template.yaml as CloudFormation gets it, with the transforms done: expand.py TEMPLATE OUT"""
import json
import sys

from samtranslator.translator.managed_policy_translator import ManagedPolicyLoader
from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse

template = yaml_parse(open(sys.argv[1], encoding="utf-8"))
# AWS::LanguageExtensions only decides on the deletion policies, which no rule is about.
template["Transform"] = "AWS::Serverless-2016-10-31"
for resource in template["Resources"].values():
    for policy in ("DeletionPolicy", "UpdateReplacePolicy"):
        if isinstance(resource.get(policy), dict):
            resource[policy] = "Retain"
    if resource["Type"] == "AWS::Serverless::Function" and "InlineCode" not in resource["Properties"]:
        resource["Properties"]["CodeUri"] = {"Bucket": "bucket", "Key": "key"}
with open(sys.argv[2], "w", encoding="utf-8") as out:
    json.dump(transform(template, {}, ManagedPolicyLoader(None)), out, default=str)
