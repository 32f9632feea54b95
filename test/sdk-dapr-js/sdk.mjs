// A program of npm's @dapr/dapr, unmodified, beside a sidecar: node sdk.mjs, with PROTOCOL (http or grpc), APP_PORT,
// DAPR_HTTP_PORT, DAPR_GRPC_PORT, DAPR_API_TOKEN, APP_API_TOKEN, BINDING_PORT, REDIS_PORT, and the names of this app and of
// the other one in SELF and PEER. It prints a line for each part, and fails with the first that is wrong. Then it serves
// until its standard input ends, and ends its sidecar.
import assert from 'node:assert/strict';
import http from 'node:http';
import net from 'node:net';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import dapr from '@dapr/dapr';

const { CommunicationProtocolEnum, DaprClient, DaprPubSubStatusEnum, DaprServer, HttpMethod, LogLevel, StateConcurrencyEnum, StateConsistencyEnum } = dapr;
const env = process.env;
const overHTTP = env.PROTOCOL === 'http';
const communicationProtocol = overHTTP ? CommunicationProtocolEnum.HTTP : CommunicationProtocolEnum.GRPC;
const daprPort = overHTTP ? env.DAPR_HTTP_PORT : env.DAPR_GRPC_PORT;
const logger = { level: LogLevel.Warn, service: { ...console, verbose() {}, warn() {}, error() {} } };

// What the sidecar brings is kept by the name it came under.
const got = {};
function keep(name, what) { (got[name] ??= []).push(what); }
async function until(what, is) {
  for (const end = Date.now() + 60_000; Date.now() < end; await sleep(50)) {
    const it = await is();
    if (it) return it;
  }
  assert.fail(`it never came to be: ${what}; there is ${JSON.stringify(got)}`);
}
const first = (name, is = () => true) => until(name, () => got[name]?.find(is));

// The server: handlers of calls, events and bindings.
const server = new DaprServer({ serverHost: '127.0.0.1', serverPort: env.APP_PORT, communicationProtocol, clientOptions: { daprPort }, logger });
const verbs = [ HttpMethod.GET, HttpMethod.POST, HttpMethod.PUT, HttpMethod.DELETE, HttpMethod.PATCH ];
for (const method of verbs) {
  await server.invoker.listen('echo', async ({ body, query, metadata, headers }) => (
    { app: env.SELF, method, body, query, contentType: metadata.contentType, token: headers?.['dapr-api-token'], custom: headers?.['x-custom'] }
  ), { method });
}
await server.invoker.listen('healthz', async () => ({ ok: true }));
await server.invoker.listen('job/reminder', async ({ body }) => keep('job', body), { method: HttpMethod.POST });
await server.invoker.listen('declared', async ({ body }) => keep('declared', JSON.parse(body)), { method: HttpMethod.POST });
await server.binding.receive('tick', async () => { got.tick = [ true ]; });

const retries = {};
await server.pubsub.subscribe('bus', 'plain', async (data, headers) => keep('plain', { data, headers }));
await server.pubsub.subscribe('bus', 'raw', async data => keep('raw', data), 'rawroute', { rawPayload: true });
await server.pubsub.subscribe('bus', 'retried', async data => {
  retries[data] = (retries[data] ?? 0) + 1;
  if (retries[data] < 3) return DaprPubSubStatusEnum.RETRY;
  keep('retried', data);
});
await server.pubsub.subscribeWithOptions('bus', 'poison', { deadLetterTopic: 'lost', callback: async () => DaprPubSubStatusEnum.DROP });
await server.pubsub.subscribe('bus', 'lost', async data => keep('lost', data));
await server.pubsub.subscribeWithOptions('bus', 'routed', {
  route: { default: '/other', rules: [ { match: 'event.type == "order.cancelled"', path: '/cancelled' }, { match: 'event.data.total > 100', path: '/large' } ] },
});
for (const route of [ 'other', 'cancelled', 'large' ]) server.pubsub.subscribeToRoute('bus', 'routed', route, async data => keep(route, data));
await server.pubsub.subscribeBulk('bus', 'bulk', async data => keep('bulk', data), { maxMessagesCount: 10, maxAwaitDurationMs: 100 });
await server.pubsub.subscribeBulk('bus', 'rawbulk', async data => keep('rawbulk', data), { metadata: { rawPayload: true } });
await server.pubsub.subscribe('stream', 'plain', async data => keep('stream', data));
await server.pubsub.subscribe('bus', 'changes', async data => keep('changes', data));
assert.deepEqual(Object.keys(server.pubsub.getSubscriptions()).sort(), [ 'bus', 'stream' ]);

// What the HTTP binding calls.
const outside = http.createServer(async (req, res) => {
  const chunks = [];
  for await (const c of req) chunks.push(c);
  res.writeHead(req.url === '/missing' ? 404 : 200, { 'content-type': 'text/plain' }).end(`${req.method} ${req.url} ${Buffer.concat(chunks)}`);
}).listen(Number(env.BINDING_PORT), '127.0.0.1');
await once(outside, 'listening');

await server.start(); // it waits for the sidecar
const client = new DaprClient({ communicationProtocol, daprPort, logger });
await client.start();

// redis says something to the Redis that holds the configuration.
async function redis(...words) {
  const conn = net.connect(Number(env.REDIS_PORT), '127.0.0.1');
  conn.write(`*${words.length}\r\n${words.map(w => `$${Buffer.byteLength(w)}\r\n${w}\r\n`).join('')}`);
  const [ answer ] = await once(conn, 'data');
  conn.destroy();
  return answer.toString();
}

// fails asserts that a call failed: over HTTP by the status and errorCode, over gRPC by the code.
async function fails(what, status, errorCode, code) {
  let err;
  try {
    err = (await what())?.error; // some calls of the SDK return it
  } catch (e) {
    err = e.error ?? e; // and some throw it in a wrapper
  }
  assert(err, 'it did not fail');
  if (!overHTTP) return assert.equal(err.code, code, `${err}`);
  const said = JSON.parse(err.message);
  assert.equal(said.status, status, err.message);
  if (errorCode) assert.equal(JSON.parse(said.error_msg).errorCode, errorCode, err.message);
}

const text = async stream => Buffer.concat(await stream.toArray()).toString();

const parts = {
  async sidecar() {
    assert.equal(client.getIsInitialized(), true);
    assert.equal(await client.health.isHealthy(), true);
    const stranger = new DaprClient({ communicationProtocol, daprPort, logger, daprApiToken: 'wrong' });
    stranger.daprClient.setIsInitialized(true); // start would wait until it is let in
    assert.equal(await stranger.health.isHealthy(), false);
    await fails(() => stranger.state.get('store', 'a'), 401, undefined, 16);
  },

  async metadata() {
    assert.equal(await client.metadata.set('color', 'blue'), true);
    const m = await client.metadata.get();
    assert.equal(m.id, env.SELF);
    assert.equal(m.extended.color, 'blue');
    const store = m.components.find(c => c.name === 'store');
    assert.equal(store.type, 'state.in-memory');
    assert.equal(store.version, 'v1');
    assert(store.capabilities.includes('ETAG') && store.capabilities.includes('TRANSACTIONAL'), store.capabilities);
    assert(m.components.some(c => c.name === 'stream' && c.type === 'pubsub.redis'));
  },

  async state() {
    for (const name of [ 'store', 'redis' ]) {
      await client.state.delete(name, 'a');
      assert.equal(await client.state.get(name, 'a'), '');
      assert.deepEqual(await client.state.save(name, [ { key: 'a', value: { n: 1, s: 'grüß 😄' } }, { key: 'b', value: 'text' }, { key: 'c', value: 17 } ]), {});
      assert.deepEqual(await client.state.get(name, 'a'), { n: 1, s: 'grüß 😄' });
      assert.equal(await client.state.get(name, 'b', { consistency: StateConsistencyEnum.CONSISTENCY_STRONG }), 'text');
      assert.equal(await client.state.get(name, 'c'), 17);

      const items = await client.state.getBulk(name, [ 'a', 'none', 'b' ], { parallelism: 4 });
      const item = key => items.find(i => i.key === key);
      assert.equal(items.length, 3);
      assert.deepEqual(item('a').data, { n: 1, s: 'grüß 😄' });
      assert.equal(item('b').data, 'text');
      assert(!item('none').data && !item('none').etag);
      assert(item('a').etag);

      // Conditions.
      const firstWrite = { concurrency: StateConcurrencyEnum.CONCURRENCY_FIRST_WRITE, consistency: StateConsistencyEnum.CONSISTENCY_STRONG };
      const { etag } = item('a');
      await client.state.save(name, [ { key: 'a', value: 2, etag, options: firstWrite } ]);
      await fails(() => client.state.save(name, [ { key: 'a', value: 3, etag, options: firstWrite } ]), 409, 'ERR_STATE_SAVE', 10);
      await fails(() => client.state.delete(name, 'a', { etag, ...firstWrite }), 409, 'ERR_STATE_DELETE', 10);
      assert.equal(await client.state.get(name, 'a'), 2);
      const [ { etag: now } ] = await client.state.getBulk(name, [ 'a' ]);
      assert.deepEqual(await client.state.delete(name, 'a', { etag: now, ...firstWrite }), {});
      assert.equal(await client.state.get(name, 'a'), '');

      // A time to live, of one and of all.
      await client.state.save(name, [ { key: 'brief', value: 1, metadata: { ttlInSeconds: '1' } } ]);
      await client.state.save(name, [ { key: 'brief2', value: 1 } ], { metadata: { ttlInSeconds: '1' } });
      await client.state.save(name, [ { key: 'long', value: 1, metadata: { ttlInSeconds: '600' } } ]);
      for (const key of [ 'brief', 'brief2' ]) await until(`${key} ends`, async () => await client.state.get(name, key) === '');
      assert.equal(await client.state.get(name, 'long'), 1);

      // Transactions.
      await client.state.transaction(name, [
        { operation: 'upsert', request: { key: 'd', value: '4' } },
        { operation: 'upsert', request: { key: 'e', value: 'five', options: firstWrite } },
        { operation: 'delete', request: { key: 'b' } },
      ], { source: 'test' });
      assert.equal(`${await client.state.get(name, 'd')}`, '4');
      assert.equal(await client.state.get(name, 'e'), 'five');
      assert.equal(await client.state.get(name, 'b'), '');
      await fails(() => client.state.transaction(name, [
        { operation: 'upsert', request: { key: 'd', value: '5' } },
        { operation: 'delete', request: { key: 'e', etag: '99999' } },
      ]), 409, 'ERR_STATE_TRANSACTION', 10);
      assert.equal(`${await client.state.get(name, 'd')}`, '4');
      for (const key of [ 'c', 'd', 'e', 'long' ]) await client.state.delete(name, key);
    }
    await fails(() => client.state.get('nope', 'a'), 400, 'ERR_STATE_STORE_NOT_FOUND', 3);
  },

  async query() {
    const cities = [ 'Oslo', 'Rome', 'Oslo', 'Paris', 'Oslo' ];
    await client.state.save('store', cities.map((city, i) => ({ key: `p${i}`, value: { city, n: i } })));
    const query = { filter: { EQ: { city: 'Oslo' } }, sort: [ { key: 'n', order: 'DESC' } ], page: { limit: 2 } };
    const data = r => overHTTP ? r.data : JSON.parse(Buffer.from(r.data));
    const one = await client.state.query('store', query);
    assert.deepEqual(one.results.map(r => data(r).n), [ 4, 2 ]);
    assert(one.token);
    const two = await client.state.query('store', { ...query, page: { limit: 2, token: one.token } });
    assert.deepEqual(two.results.map(r => [ r.key, data(r).n ]), [ [ 'p0', 0 ] ]);
    const none = await client.state.query('store', { filter: { EQ: { city: 'Bern' } } });
    assert.deepEqual(none.results, []);
  },

  async outbox() {
    await client.state.transaction('ledger', [ { operation: 'upsert', request: { key: 'order', value: 'placed' } } ]);
    assert.equal(await first('changes'), 'placed');
  },

  async pubsub() {
    const publish = async (...args) => assert.deepEqual(await client.pubsub.publish(...args), {});
    await publish('bus', 'plain', { n: 1, s: 'grüß 😄' });
    assert.deepEqual((await first('plain')).data, { n: 1, s: 'grüß 😄' });
    assert.equal((await first('plain')).headers['dapr-api-token'], env.APP_API_TOKEN);
    await publish('bus', 'plain', 'some text');
    await first('plain', e => e.data === 'some text');
    await publish('bus', 'plain', Buffer.from('some bytes'));
    await first('plain', e => e.data === 'some bytes');
    await publish('bus', 'plain', [ 1, 2 ], { contentType: 'application/json', metadata: { ttlInSeconds: '600' } });
    await first('plain', e => e.data?.[1] === 2);
    await publish('bus', 'plain', { id: 'x1', source: 'me', type: 'mine', specversion: '1.0', datacontenttype: 'application/json', data: { event: true } });
    await first('plain', e => e.data?.event === true);
    await publish('stream', 'plain', { streamed: env.SELF });
    await first('stream', e => e.streamed === env.SELF);

    await publish('bus', 'raw', { bare: 1 }, { metadata: { rawPayload: 'true' } });
    assert.deepEqual(await first('raw'), { bare: 1 });
    await publish('bus', 'retried', 'again');
    assert.equal(await first('retried'), 'again');
    assert.equal(retries.again, 3);
    await publish('bus', 'poison', { bad: true });
    assert.deepEqual(await first('lost'), { bad: true });

    await publish('bus', 'routed', { total: 7 });
    await publish('bus', 'routed', { total: 700 });
    await publish('bus', 'routed', { total: 800 }, { metadata: { 'cloudevent.type': 'order.cancelled' } });
    assert.deepEqual(await first('other'), { total: 7 });
    assert.deepEqual(await first('large'), { total: 700 });
    assert.deepEqual(await first('cancelled'), { total: 800 });
    assert.deepEqual([ got.other.length, got.large.length, got.cancelled.length ], [ 1, 1, 1 ]);

    if (overHTTP) { // over gRPC the SDK refuses what it did not subscribe to itself
      await publish('bus', 'declared', { by: 'a resource' });
      assert.deepEqual((await first('declared')).data, { by: 'a resource' });
    }
    await fails(() => client.pubsub.publish('nope', 'plain', 'x'), 404, 'ERR_PUBSUB_NOT_FOUND', 3);
  },

  async bulk() {
    const sent = await client.pubsub.publishBulk('bus', 'bulk', [
      'text', { n: 1 }, { event: { n: 2 }, entryID: 'mine', contentType: 'application/json' }, { event: 'more', metadata: { ttlInSeconds: '60' } },
    ], { a: 'b' });
    assert.deepEqual(sent, { failedMessages: [] });
    await until('all of them are there', () => got.bulk?.length >= 4);
    assert.deepEqual(new Set(got.bulk.map(e => JSON.stringify(e))), new Set([ '"text"', '{"n":1}', '{"n":2}', '"more"' ]));
    assert.deepEqual(await client.pubsub.publishBulk('bus', 'rawbulk', [ { raw: 1 } ], { rawPayload: 'true' }), { failedMessages: [] });
    assert.deepEqual(await first('rawbulk'), { raw: 1 });
    const failed = await client.pubsub.publishBulk('nope', 'bulk', [ 'x', 'y' ]);
    assert.deepEqual(failed.failedMessages.map(f => f.message.event), [ 'x', 'y' ]);
  },

  async invoker() {
    const body = { n: 1, s: 'grüß 😄' };
    // The other app may come later than this one.
    await until(`${env.PEER} is found`, () => client.invoker.invoke(env.PEER, 'echo', HttpMethod.GET).then(() => true, () => false));
    for (const app of [ env.SELF, env.PEER ]) {
      for (const method of verbs) {
        const sends = method !== HttpMethod.GET;
        const said = await client.invoker.invoke(app, 'echo', method, sends ? body : undefined, { headers: { 'x-custom': '7' } });
        assert.equal(said.app, app);
        assert.equal(said.method, method);
        if (sends) {
          assert.deepEqual(JSON.parse(said.body), body);
          assert.equal(said.contentType, 'application/json');
        }
        const appHTTP = overHTTP === (app === env.SELF);
        if (appHTTP) assert.equal(said.token, env.APP_API_TOKEN);
        if (appHTTP && overHTTP) assert.equal(said.custom, '7');
      }
      if (overHTTP && app === env.SELF) { // elsewhere the SDK hands no query on
        const said = await client.invoker.invoke(app, 'echo?x=1&y=%20', HttpMethod.GET);
        assert.match(said.query, /^\/echo\?x=1&y=(%20|\+)$/);
      }
    }
    if (overHTTP) await fails(() => client.invoker.invoke(env.SELF, 'nothing'), 404);
    await fails(() => client.invoker.invoke('nobody-there', 'echo'), 500, 'ERR_DIRECT_INVOKE', 13);
  },

  async binding() {
    const bytes = res => overHTTP ? `${res?.data ?? res}` : Buffer.from(res.data).toString();
    const files = (operation, data, metadata) => client.binding.send('files', operation, data, metadata);
    await files('create', 'plain text', { fileName: 'a.txt' });
    assert.equal(bytes(await files('get', undefined, { fileName: 'a.txt' })), 'plain text');
    await files('delete', undefined, { fileName: 'a.txt' });
    await assert.rejects(() => files('get', undefined, { fileName: 'a.txt' }));
    const res = await client.binding.send('web', 'post', { n: 1 }, { path: '/orders' });
    assert.equal(bytes(res), 'POST /orders {"n":1}');
    if (!overHTTP) assert.equal(res.metadata.statusCode, '200');
    await assert.rejects(() => client.binding.send('web', 'get', undefined, { path: '/missing' }));
    await fails(() => client.binding.send('nope', 'create', 'x'), 500, 'ERR_INVOKE_OUTPUT_BINDING', 13);
    await first('tick');
  },

  async configuration() {
    await redis('MSET', 'color', 'blue||1', 'size', 'large||3');
    const { items } = await client.configuration.get('settings', [ 'color', 'size', 'none' ]);
    assert.deepEqual(Object.keys(items).sort(), [ 'color', 'size' ]);
    assert.equal(items.color.value, 'blue');
    assert.equal(items.color.version, '1');
    const told = got.told = { all: {}, some: {}, more: {} };
    const on = name => async ({ items }) => { for (const i of Object.values(items)) told[name][i.key] = i.value; };
    const streams = [
      await client.configuration.subscribe('settings', on('all')),
      await client.configuration.subscribeWithKeys('settings', [ 'color' ], on('some')),
      await client.configuration.subscribeWithMetadata('settings', [ 'color', 'size' ], { a: 'b' }, on('more')),
    ];
    let n = 0;
    await until('every subscriber is told', async () => {
      await redis('MSET', 'color', `c${++n}||1`, 'size', `s${n}||1`);
      return told.all.color && told.all.size && told.some.color && told.more.color && told.more.size;
    });
    await until('the last change is told', () => told.all.color === `c${n}` && told.some.color === `c${n}` && told.more.size === `s${n}`);
    assert.equal(told.some.size, undefined);
    await streams[0].stop();
    await streams[1].stop();
    await redis('SET', 'color', 'last||1');
    await until('who is left is told', () => told.more.color === 'last');
    assert.notEqual(told.some.color, 'last');
    await streams[2].stop();
    await fails(() => client.configuration.get('nope', [ 'a' ]), 0, '', 3);
  },

  async secret() {
    assert.deepEqual(await client.secret.get('vault', 'token'), { token: 's3cret' });
    assert.deepEqual(await client.secret.getBulk('vault'), { token: { token: 's3cret' }, 'db:user': { 'db:user': 'u' } });
    await fails(() => client.secret.get('vault', 'none'), 500, 'ERR_SECRET_GET', 13);
    await fails(() => client.secret.get('nope', 'token'), 401, 'ERR_SECRET_STORE_NOT_FOUND', 3);
  },

  async lock() {
    for (const name of [ 'locks', 'redislocks' ]) {
      assert.deepEqual(await client.lock.lock(name, env.SELF, 'me', 60), { success: true });
      assert.deepEqual(await client.lock.lock(name, env.SELF, 'you', 60), { success: false });
      assert.deepEqual(await client.lock.unlock(name, env.SELF, 'you'), { status: 2 });
      assert.deepEqual(await client.lock.unlock(name, env.SELF, 'me'), { status: 0 });
      assert.deepEqual(await client.lock.unlock(name, env.SELF, 'me'), { status: 1 });
    }
    await fails(() => client.lock.lock('nope', 'r', 'me', 60), 400, 'ERR_LOCK_STORE_NOT_FOUND', 3);
  },

  async crypto() {
    const plain = 'a secret, grüß 😄 '.repeat(20_000);
    for (const [ keyName, keyWrapAlgorithm, dataEncryptionCipher ] of [ [ 'rsa.pem', 'RSA', undefined ], [ 'sym', 'AES', 'chacha20-poly1305' ] ]) {
      const options = { componentName: 'keys', keyName, keyWrapAlgorithm, dataEncryptionCipher };
      const sealed = await client.crypto.encrypt(plain, options);
      assert(sealed.subarray(0, 15).equals(Buffer.from('dapr.io/enc/v1\n')));
      assert.equal((await client.crypto.decrypt(sealed, { componentName: 'keys' })).toString(), plain);
      const sealing = await client.crypto.encrypt(options);
      sealing.end(plain);
      const opening = await client.crypto.decrypt({ componentName: 'keys' });
      sealing.pipe(opening);
      assert.equal(await text(opening), plain);
      sealed[sealed.length - 1] ^= 1;
      await assert.rejects(() => client.crypto.decrypt(sealed, { componentName: 'keys' }));
    }
    await assert.rejects(() => client.crypto.encrypt('x', { componentName: 'keys', keyName: 'none', keyWrapAlgorithm: 'RSA' }));
  },

  // The SDK's client has no jobs; its server takes them, over gRPC by doing nothing.
  async jobs() {
    const job = async (method, body) => {
      const res = await fetch(`http://127.0.0.1:${env.DAPR_HTTP_PORT}/v1.0-alpha1/jobs/reminder`, { method, body: JSON.stringify(body), headers: { 'dapr-api-token': env.DAPR_API_TOKEN } });
      return { status: res.status, text: await res.text() };
    };
    assert.equal((await job('POST', { data: { task: 'tea' }, dueTime: '0s' })).status, 204);
    if (overHTTP) assert.match(await first('job'), /tea/);
    await until('the job is done', async () => (await job('GET')).status !== 200);
  },

  // The program has no actors, and the API says that there are none.
  async actors() {
    if (overHTTP) await fails(() => client.daprClient.execute('/actors/t/1/state/k'), 501);
  },
};

if (overHTTP) { // what the SDK has over gRPC only
  await assert.rejects(() => client.configuration.get('settings', [ 'color' ]), /not supported/i);
  assert.throws(() => client.crypto.encrypt('x', {}), /not available using the HTTP APIs/);
  delete parts.configuration;
  delete parts.crypto;
}
for (const [ name, part ] of Object.entries(parts)) {
  await part();
  console.log(`ok ${env.PROTOCOL} ${name}`);
}
console.log('done');
process.stdin.resume();
await once(process.stdin, 'end');
await client.sidecar.shutdown();
await until('the sidecar ends', () => fetch(`http://127.0.0.1:${env.DAPR_HTTP_PORT}/v1.0/healthz`).then(() => false, () => true));
await client.stop();
await server.stop();
console.log(`ok ${env.PROTOCOL} shutdown`);
process.exit(0);
