// Prints how many tests of each kind passed, and those that should have.
import fs from 'node:fs'
import path from 'node:path'
import { pathToFileURL } from 'node:url'

const [suite, name, file] = process.argv.slice(2)
const load = part => import(pathToFileURL(path.resolve(suite, part)).href)
const suites = (await load('tests/index.mjs')).default
const text = fs.readFileSync(file, 'utf8')
const begin = text.indexOf('{')
const results = begin < 0 ? {} : JSON.parse(text.slice(begin))
const kinds = {}
for (const part of suites) {
  for (const test of part.tests) {
    if (test.browser_only) continue
    const kind = test.kind || 'required'
    kinds[kind] ??= { passed: 0, of: 0, failed: [] }
    kinds[kind].of += 1
    if (results[test.id] === true) kinds[kind].passed += 1
    else kinds[kind].failed.push(`  ${test.id}: ${[results[test.id] ?? 'not run'].flat().join(' ')}`)
  }
}
const line = ['required', 'optimal', 'check'].map(kind => `${kind} ${kinds[kind]?.passed ?? 0}/${kinds[kind]?.of ?? 0}`)
console.log(`${name.padEnd(8)} ${line.join('   ')}`)
if (process.env.FAILED) {
  for (const kind of process.env.FAILED.split(',')) console.log((kinds[kind]?.failed ?? []).join('\n'))
}
