// Checks an expanded template against the rules of cdk-nag: check.cjs TEMPLATE. A rule that is not followed has its reason here.
'use strict';
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { App, Aspects, Stack } = require('aws-cdk-lib');
const { CfnInclude } = require('aws-cdk-lib/cloudformation-include');
const { AwsSolutionsChecks, ServerlessChecks } = require('cdk-nag');

const everyMinute = ['', 1, 2, 3, 4, 5, 6, 7].map((number) => `CloseFunctionEveryMinute${number}`);
const functions = ['IngestFunction', 'CloseFunction', 'SettingsCheckFunction', 'DeploymentCheckFunction'];
const ends = 'The queue is an end: what it holds waits for its reader.';
const accepted = [
  ['AwsSolutions-IAM4', ['DeploymentRole'], 'Of CodeDeploy, AWS keeps the only complete list of what a deployment needs.'],
  ['AwsSolutions-IAM5', ['ReplayPolicy'], 'The objects below replay/ in the bucket of the stack, whose names are not known before.'],
  ['AwsSolutions-L1', ['DeploymentCheckFunction'], 'A script without dependencies: any Python that Lambda supports will do.'],
  ['AwsSolutions-S1', ['ReplayBucket'], 'Only the ingest function reads and writes it; CloudTrail has its calls, where it is on.'],
  ['AwsSolutions-SQS3', ['OutputQueue', 'RejectsQueue'], ends],
  ['Serverless-SQSRedrivePolicy', ['OutputQueue', 'RejectsQueue', 'InputDeadLetterQueue'], ends],
  ['Serverless-EventBusDLQ', everyMinute, 'The next minute’s run is the retry, and what was not closed is still due.'],
  ['Serverless-LambdaAsyncFailureDestination', ['CloseFunctionEventInvokeConfig'], 'The same.'],
  ['Serverless-LambdaDLQ', functions, 'The input queue has dead letters of its own; all other callers get the failure.'],
  ['Serverless-LambdaEventSourceMappingDestination', ['IngestFunctionQueue'], 'SQS moves what failed to the dead letters by itself.'],
  ['Serverless-LambdaLatestVersion', ['DeploymentCheckFunction'], 'See AwsSolutions-L1.'],
  ['Serverless-LambdaTracing', functions, 'Tracing is a parameter.'],
  ['DynamoDBPITREnabled', ['SessionsTable'], 'Point-in-time recovery is a parameter, on by default, which the rule cannot read.'],
];

const found = new Set();
const note = (rule, resource) => found.add(`${rule} at ${resource.node.id}`);
const ignored = () => {};
const additionalLoggers = [{
  onCompliance: ignored,
  onNotApplicable: ignored,
  onSuppressed: ignored,
  onSuppressedError: ignored,
  onNonCompliance: ({ ruleId, resource }) => note(ruleId, resource),
  onError: ({ ruleOriginalName, resource }) => note(ruleOriginalName, resource),
}];
const outdir = fs.mkdtempSync(path.join(os.tmpdir(), 'nag-'));
const app = new App({ outdir, analyticsReporting: false });
new CfnInclude(new Stack(app, 'Stack'), 'Template', { templateFile: process.argv[2] });
for (const Checks of [AwsSolutionsChecks, ServerlessChecks]) {
  Aspects.of(app).add(new Checks({ additionalLoggers, reports: false }));
}
app.synth();
fs.rmSync(outdir, { recursive: true });

const expected = new Set(accepted.flatMap(([rule, resources]) => resources.map((resource) => `${rule} at ${resource}`)));
const without = [...found].filter((finding) => !expected.has(finding));
const stale = [...expected].filter((finding) => !found.has(finding));
without.forEach((finding) => console.log(`cdk-nag: ${finding} has no reason here`));
stale.forEach((finding) => console.log(`cdk-nag: ${finding} is not found any more; remove its reason`));
console.log(`cdk-nag: ${found.size} findings, ${found.size - without.length} of them with a reason`);
process.exitCode = without.length + stale.length > 0 ? 1 : 0;
