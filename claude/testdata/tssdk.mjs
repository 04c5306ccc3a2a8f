// Reads a replayed run with the official TypeScript SDK, the way its users do,
// and prints how many messages came and how long that took, in milliseconds from
// the first to the result.
//
//   node tssdk.mjs PATH_OF_SDK_MJS PATH_OF_REPLAYING_PROGRAM
import { pathToFileURL } from 'node:url'

const { query } = await import(pathToFileURL(process.argv[2]).href)

let messages = 0
let bytes = 0
let start
let end
for await (const m of query({
  prompt: 'x',
  options: { pathToClaudeCodeExecutable: process.argv[3], includePartialMessages: true, cwd: '/tmp' },
})) {
  start ??= performance.now()
  messages++
  // What the Go side looks at too.
  if (m.type === 'stream_event') bytes += m.event.delta?.text?.length ?? 0
  else if (m.type === 'assistant' || m.type === 'user') bytes += m.message.content.length
  else if (m.type === 'result') end = performance.now()
}
console.log(JSON.stringify({ messages, bytes, ms: end - start }))
