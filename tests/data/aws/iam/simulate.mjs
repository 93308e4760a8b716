// Reads a JSON list of requests from stdin, and prints AWS's answer to each: Allowed, ImplicitlyDenied, ExplicitlyDenied.
import { readFileSync } from 'node:fs'
import { runSimulation } from '@cloud-copilot/iam-simulate'

const answers = []
for (const row of JSON.parse(readFileSync(0, 'utf8'))) {
  const simulation = {
    request: {
      principal: row.principal,
      action: row.action,
      resource: { resource: row.resource, accountId: row.account },
      contextVariables: row.context,
    },
    identityPolicies: row.identity.map((policy, i) => ({ name: `p${i}`, policy })),
    serviceControlPolicies: [],
    resourceControlPolicies: [],
    ...(row.resourcePolicy ? { resourcePolicy: row.resourcePolicy } : {}),
  }
  const found = await runSimulation(simulation, {})
  answers.push(found.errors ? { error: JSON.stringify(found.errors) } : { result: found.overallResult ?? found.analysis?.result })
}
process.stdout.write(JSON.stringify(answers))
