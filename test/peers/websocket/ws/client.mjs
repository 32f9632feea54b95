// The library ws of Node.js as a client: node client.mjs URL [CA]. It ends with 1 and says why where something is wrong.
import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import WebSocket from 'ws'

const [url, ca] = process.argv.slice(2)
const options = { ca: ca && readFileSync(ca), perMessageDeflate: false }

// open fails where the handshake does.
async function open(more = {}) {
  const c = new WebSocket(url, { ...options, ...more })
  c.on('error', e => { throw e })
  await once(c, 'open')
  return c
}

async function echoes(c, data, sendOptions) {
  const answer = once(c, 'message')
  c.send(data, sendOptions)
  const [got, binary] = await answer
  assert.equal(binary, typeof data !== 'string')
  assert.ok(Buffer.from(data).equals(got), `${data.length} came back as ${got.length}`)
}

const cases = {
  async echo() {
    const c = await open()
    for (const n of [0, 1, 125, 126, 65535, 65536, 1 << 20, 5 << 20]) {
      await echoes(c, randomBytes(n))
      await echoes(c, 'ü'.repeat(n / 2))
    }
    c.close(4000, 'done')
    assert.equal((await once(c, 'close'))[0], 4000) // the server repeats the code without the reason
  },
  async fragments() {
    const c = await open()
    const answer = once(c, 'message')
    for (const part of ['to ', '', 'and ']) c.send(part, { fin: false })
    const pong = once(c, 'pong')
    c.ping('between')
    c.send('fro', { fin: true })
    assert.equal((await pong)[0].toString(), 'between')
    assert.equal((await answer)[0].toString(), 'to and fro')
    c.terminate()
  },
  async compression() {
    const c = await open({ perMessageDeflate: { threshold: 0 } })
    assert.match(c.extensions, /^permessage-deflate/)
    for (let i = 0; i < 5; i++) await echoes(c, 'again and again '.repeat(10_000))
    c.close()
    await once(c, 'close')
  },
  async many() {
    const all = await Promise.all(Array.from({ length: 100 }, () => open()))
    await Promise.all(all.map((c, i) => echoes(c, String(i).repeat(1000))))
    await Promise.all(all.map(c => { c.close(); return once(c, 'close') }))
  },
  async pipelined() {
    const c = await open()
    const [sent, got] = [createHash('sha256'), createHash('sha256')]
    let left = 2000
    const done = new Promise(resolve => c.on('message', m => { got.update(m); if (--left === 0) resolve() }))
    for (let i = 0; i < 2000; i++) {
      const b = randomBytes(i)
      sent.update(b)
      c.send(b)
    }
    await done
    assert.equal(got.digest('hex'), sent.digest('hex'))
    c.close()
    await once(c, 'close')
  },
}

for (const [name, run] of Object.entries(cases)) {
  await run()
  console.log(name)
}
