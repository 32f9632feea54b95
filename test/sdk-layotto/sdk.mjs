// Every call of npm's layotto, unmodified, against Loam: node sdk.mjs with runtime_GRPC_PORT, appcallback_GRPC_PORT,
// ACTUATOR_PORT and HTTPAPP_PORT set. It prints a line for each part, and fails with the first that is wrong.
import assert from 'node:assert/strict';
import http from 'node:http';
import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { Readable } from 'node:stream';
import { createRequire } from 'node:module';
import grpc from '@grpc/grpc-js';
import layotto from 'layotto';

const { Client, Server, RuntimeTypes, Types } = layotto;
const quiet = { info() {}, warn() {}, error() {} };
const stamp = `${process.pid}-${Date.now()}`;

// The app that is invoked, and what the binding calls.
const app = http.createServer((req, res) => {
  const chunks = [];
  req.on('data', c => chunks.push(c));
  req.on('end', () => {
    const body = Buffer.concat(chunks).toString();
    if (req.url === '/fail') {
      res.writeHead(404).end('no such page');
    } else if (req.url === '/json') {
      res.writeHead(200, { 'content-type': 'application/json; charset=utf-8' }).end(JSON.stringify({ method: req.method, body: JSON.parse(body), trace: req.headers.traceid }));
    } else {
      res.writeHead(200, { 'content-type': 'text/plain' }).end(`${req.method} ${req.url} ${body}`);
    }
  });
});
await new Promise(resolve => app.listen(Number(process.env.HTTPAPP_PORT), '127.0.0.1', resolve));

// The program's own server, which Loam calls back.
const got = [];
const server = new Server(undefined, undefined, { logger: quiet });
let tries = 0;
server.pubsub.addPubSubSubscription('pub_subs_demo', 'orders', { a: 'b' });
server.pubsub.addPubSubSubscription('lock_demo', 'orders');
server.pubsub.subscribe('pub_subs_demo', 'orders', async (data, request) => {
  if (data.fails && ++tries < 3) throw new Error('not this time');
  got.push({ data, request });
});
const delayed = [];
server.pubsub.addPubSubSubscription('pub_subs_demo', 'later');
server.pubsub.subscribe('pub_subs_demo', 'later', async (data, request) => { delayed.push({ data, at: Date.now(), id: request.id }); });
server.pubsub.subscribe('lock_demo', 'orders', async (data, request) => { got.push({ data, request }); });
await server.start();

const client = new Client(undefined, undefined, { logger: quiet, ossEnable: true, cryption: { componentName: 'cryption_demo' } });

async function until(what, is) {
  for (let i = 0; i < 600; i++) {
    if (await is()) return;
    await sleep(50);
  }
  assert.fail(`it never came to be: ${what}`);
}

// rejects asserts gRPC's code and the words.
async function rejects(fn, code, details) {
  await assert.rejects(fn, err => {
    assert.equal(err.code, code, err.message);
    if (details instanceof RegExp) assert.match(err.details, details);
    else assert.equal(err.details, details);
    return true;
  });
}

async function text(stream) {
  const chunks = [];
  for await (const c of stream) chunks.push(c);
  return Buffer.concat(chunks).toString();
}

const parts = {
  async hello() {
    assert.equal(await client.hello.sayHello(), 'greeting');
    assert.equal(await client.hello.sayHello({ name: 'js-sdk' }), 'greeting, js-sdk');
  },

  async state() {
    const storeName = 'state_demo';
    await rejects(() => client.state.get({ storeName: 'notexists-store', key: 'foo' }), 3, 'state store notexists-store is not found');
    const key = `key-${stamp}`;
    assert.equal(await client.state.get({ storeName, key }), null);
    await client.state.save({ storeName, states: { key, value: '' } });
    let it = await client.state.get({ storeName, key });
    assert.equal(it.value.length, 0);
    const value = `hello js-sdk, with 中文, 😄, at ${Date()}`;
    await client.state.save({ storeName, states: { key, value }, requestMeta: { traceid: 'x' } });
    it = await client.state.get({ storeName, key });
    assert.equal(Buffer.from(it.value).toString(), value);
    await client.state.save({ storeName, states: { key, value: 'next', etag: it.etag } });
    await rejects(() => client.state.save({ storeName, states: { key, value: 'late', etag: it.etag } }), 10, /^failed saving state in state store state_demo: /);
    await rejects(() => client.state.delete({ storeName, key, etag: it.etag }), 10, /^failed deleting state with key /);

    const items = Array.from({ length: 20 }, (_, i) => ({ key: `bulk${i}-${stamp}`, value: `value ${i}` }));
    const keys = items.map(i => i.key);
    const bulk = async () => (await client.state.getBulk({ storeName, keys })).length;
    await client.state.deleteBulk({ storeName, states: keys.map(k => ({ key: k })) });
    assert.equal(await bulk(), 0);
    await client.state.save({ storeName, states: items });
    const states = await client.state.getBulk({ storeName, keys, parallelism: 4 });
    assert.deepEqual(states.map(s => Buffer.from(s.value).toString()), items.map(i => i.value));
    await client.state.deleteBulk({ storeName, states: keys.slice(0, 5).map(k => ({ key: k })) });
    assert.equal(await bulk(), 15);
    await client.state.executeTransaction({
      storeName,
      operations: [
        ...keys.slice(0, 5).map(k => ({ operationType: Types.State?.StateOperationType?.Upsert ?? 'upsert', request: { key: k, value: 'again' } })),
        { operationType: 'delete', request: { key: keys[19] } },
      ],
    });
    assert.equal(await bulk(), 19);
    await client.state.delete({ storeName, key });
    await client.state.delete({ storeName, key }); // one that is not there is no trouble
    assert.equal(await client.state.get({ storeName, key }), null);
  },

  async configuration() {
    const storeName = 'config_demo';
    const appId = 'js-sdk';
    const [ one, two ] = [ `one-${stamp}`, `two-${stamp}` ];
    const get = extra => client.configuration.get({ storeName, appId, keys: [ one, two ], ...extra });
    assert.equal((await get()).length, 0);
    const save = (key, content, extra) => client.configuration.save({ storeName, appId, items: [ { key, content, ...extra } ] });
    await save(one, 'world1 哈哈，😄');
    await save(two, 'world2');
    await save(one, 'of a group', { group: 'g', label: 'l' });
    assert.deepEqual((await get()).map(i => [ i.key, i.content ]), [ [ one, 'world1 哈哈，😄' ], [ two, 'world2' ] ]);
    assert.deepEqual((await get({ group: 'g', label: 'l' })).map(i => [ i.key, i.content, i.group, i.label ]), [ [ one, 'of a group', 'g', 'l' ] ]);

    const last = {};
    let closed;
    const call = client.configuration.subscribe({
      storeName, appId, keys: [ one, two ],
      onData(items) { for (const i of items) last[i.key] = i.content; },
      onClose(err) { closed = err ?? null; },
    });
    let n = 0;
    await until('a change is told', async () => {
      await save(one, `change ${++n}`);
      await save(two, `other ${n}`);
      return last[one]?.startsWith('change') && last[two]?.startsWith('other');
    });
    await until('the last change is told', () => last[one] === `change ${n}` && last[two] === `other ${n}`);
    call.end();
    await until('the stream is closed', () => closed !== undefined);
    assert.equal(closed, null);
    await client.configuration.delete({ storeName, appId, keys: [ one, two ] });
    assert.equal((await get()).length, 0);
    assert.equal((await get({ group: 'g', label: 'l' })).length, 1);
    await rejects(() => client.configuration.get({ storeName: 'none', appId, keys: [ one ] }), 3, "configure store [none] don't support now");
  },

  async lock() {
    const storeName = 'lock_demo';
    const { Status } = RuntimeTypes.UnlockResponse;
    const resourceId = `lock-${stamp}`;
    const [ mine, other ] = [ client.lock.uuid(), client.lock.uuid() ];
    assert.equal((await client.lock.unLock({ storeName, resourceId, lockOwner: mine })).status, Status.LOCK_UNEXIST);
    assert.equal(await client.lock.tryLock({ storeName, resourceId, lockOwner: mine, expire: 1 }), true);
    assert.equal(await client.lock.tryLock({ storeName, resourceId, lockOwner: other, expire: 1 }), false);
    assert.equal((await client.lock.unLock({ storeName, resourceId, lockOwner: other })).status, Status.LOCK_BELONG_TO_OTHERS);
    await until('the lease ends', () => client.lock.tryLock({ storeName, resourceId, lockOwner: other, expire: 30 }));
    assert.equal((await client.lock.unLock({ storeName, resourceId, lockOwner: other })).status, Status.SUCCESS);
    await rejects(() => client.lock.tryLock({ storeName, resourceId: '', lockOwner: mine, expire: 1 }), 3, 'ResourceId is empty in lock store lock_demo');
    await rejects(() => client.lock.tryLock({ storeName, resourceId, lockOwner: mine, expire: 0 }), 3, 'Expire is not positive in lock store lock_demo');
    await rejects(() => client.lock.tryLock({ storeName: 'none', resourceId, lockOwner: mine, expire: 1 }), 3, 'lock store none not found');
  },

  async sequencer() {
    const { AutoIncrement } = RuntimeTypes.SequencerOptions;
    let last = 0n;
    for (const options of [ undefined, { increment: AutoIncrement.WEAK }, { increment: AutoIncrement.STRONG } ]) {
      for (let i = 0; i < 20; i++) {
        const id = await client.sequencer.getNextId({ storeName: 'sequencer_demo', key: 'user_info', options });
        assert(BigInt(id) > last);
        last = BigInt(id);
      }
    }
    await rejects(() => client.sequencer.getNextId({ storeName: 'none', key: 'a' }), 3, 'Sequencer store none not found');
  },

  async pubsub() {
    await client.pubsub.publish({ pubsubName: 'pub_subs_demo', topic: 'orders', data: { n: 1 } });
    await client.pubsub.publish({ pubsubName: 'lock_demo', topic: 'orders', data: { n: 2 } });
    await client.pubsub.publish({ pubsubName: 'pub_subs_demo', topic: 'orders', data: { n: 3, fails: true } });
    await until('the events are there', () => got.length >= 3);
    const by = n => got.find(g => g.data.n === n)?.request;
    assert.deepEqual(got.map(g => g.data.n).sort(), [ 1, 2, 3 ]);
    assert.equal(tries, 3);
    assert.equal(by(1).pubsubName, 'pub_subs_demo');
    assert.equal(by(2).pubsubName, 'lock_demo'); // a name that a lock has too
    assert.equal(by(1).topic, 'orders');
    assert.equal(by(1).source, 'runtime');
    assert.equal(by(1).type, 'com.runtime.event.sent');
    assert.equal(by(1).specVersion, '1.0');
    assert.equal(by(1).dataContentType, 'application/json');
    assert(by(1).id);
    await rejects(() => client.pubsub.publish({ pubsubName: 'none', topic: 'orders', data: {} }), 3, 'pubsub none not found');
    await rejects(() => client.pubsub.publish({ pubsubName: 'pub_subs_demo', topic: '', data: {} }), 3, 'topic is empty in pubsub pub_subs_demo');
  },

  async invoker() {
    const id = 'hello-service';
    const said = await client.invoker.invoke({ id, method: '/hello', data: 'hello runtime' });
    assert.deepEqual(said, { contentType: 'text/plain', content: 'GET /hello hello runtime' });
    const json = await client.invoker.invoke({ id, method: '/json', httpVerb: RuntimeTypes.HTTPExtension.Verb.POST, data: { a: 1 }, requestMeta: { traceid: '7' } });
    assert.deepEqual(json, { contentType: 'application/json', content: { method: 'POST', body: { a: 1 }, trace: '7' } });
    await rejects(() => client.invoker.invoke({ id, method: '/fail' }), 14, 'http response code 404, body: no such page');
    await rejects(() => client.invoker.invoke({ id: 'none', method: '/' }), 14, /^app none is not known/);
  },

  async binding() {
    const res = await client.binding.invoke({ name: 'bindings_demo', operation: 'post', data: '😄ok，你好', metadata: { token: '123' } });
    assert.equal(Buffer.from(res.data).toString(), 'POST /binding 😄ok，你好');
    assert.equal(res.metadata.statusCode, '200');
    await rejects(() => client.binding.invoke({ name: 'none', operation: 'get' }), 3, /couldn't find output binding none/);
  },

  async file() {
    const storeName = 'file_demo';
    const large = 'x'.repeat(300_000);
    await client.file.put({ storeName, name: 'docs/a.txt', data: Buffer.from('哈哈😄，text', 'utf8') });
    await client.file.put({ storeName, name: 'docs/large', stream: Readable.from([ Buffer.from(large), Buffer.from('end') ]) });
    // The SDK's put ends when all is sent, not when it is answered.
    await until('the files are there', async () => (await client.file.list({ storeName, name: 'docs' })).names.length === 2);
    assert.deepEqual((await client.file.list({ storeName, name: 'docs' })).names, [ 'a.txt', 'large' ]);
    assert.equal(await text(await client.file.get({ storeName, name: 'docs/a.txt' })), '哈哈😄，text');
    assert.equal(await text(await client.file.get({ storeName, name: 'docs/large' })), large + 'end');
    await client.file.delete({ storeName, name: 'docs/a.txt' });
    await rejects(async () => text(await client.file.get({ storeName, name: 'docs/a.txt' })), 5, /^get file fail,err: /);
    await rejects(async () => text(await client.file.get({ storeName: 'notexists', name: 'a' })), 3, 'not supported store type: notexists');
    await rejects(async () => text(await client.file.get({ storeName, name: '../../../etc/passwd' })), 3, /^get file fail,err: /);
    await rejects(async () => text(await client.file.get({ storeName, name: '/etc/passwd' })), 3, /^get file fail,err: /);
  },

  async oss() {
    const at = { storeName: 'oss_demo', bucket: 'shop' };
    const object = async (key, extra) => {
      const res = await client.oss.get({ ...at, key, ...extra });
      return { ...res, text: await text(res.object) };
    };
    const put = await client.oss.put({ ...at, key: '/test.txt', body: Readable.from([ Buffer.from('hello '), Buffer.from('world') ]), contentLength: 11, cacheControl: 'no-store' });
    assert(put.etag);
    const got = await object('test.txt');
    assert.equal(got.text, 'hello world');
    assert.equal(got.etag, put.etag);
    assert.equal(got.cacheControl, 'no-store');
    assert.equal(got.contentLength, 11);
    assert.equal((await object('test.txt', { start: 6, end: 8 })).text, 'wor');

    const chunk = Buffer.alloc(1024).fill('a');
    const sum = createHash('md5');
    for (let i = 0; i < 1024; i++) sum.update(chunk);
    await client.oss.put({ ...at, key: 'large.txt', body: Readable.from(Array(1024).fill(chunk)), contentLength: 1024 * 1024 });
    assert.equal(createHash('md5').update((await object('large.txt')).text).digest('hex'), sum.digest('hex'));

    await client.oss.put({ ...at, key: 'empty', body: Readable.from([]), contentLength: 0 });
    assert.equal((await object('empty')).text, '');
    const copied = await client.oss.copy({ ...at, key: 'copy.txt', copySource: { copySourceBucket: 'shop', copySourceKey: 'test.txt' } });
    assert(copied.copyObjectResult.etag);
    assert.equal((await object('copy.txt')).text, 'hello world');
    assert.equal(Object.fromEntries((await client.oss.head({ ...at, key: 'copy.txt' })).resultMetadataMap)['Content-Length'], '11');
    assert.deepEqual((await client.oss.list({ ...at, prefix: 'co' })).contentsList.map(o => o.key), [ 'copy.txt' ]);
    const page = await client.oss.list({ ...at, maxkeys: 2 });
    assert.equal(page.isTruncated, true);
    assert.deepEqual((await client.oss.list({ ...at, marker: page.nextMarker })).contentsList.map(o => o.key), [ 'large.txt', 'test.txt' ]);
    assert.equal((await client.oss.isObjectExist({ ...at, key: 'copy.txt' })).fileExist, true);
    assert.equal((await client.oss.isObjectExist({ ...at, key: 'none' })).fileExist, false);
    await client.oss.putObjectTagging({ ...at, key: 'copy.txt', tags: { a: 'b' } });
    assert.deepEqual((await client.oss.getObjectTagging({ ...at, key: 'copy.txt' })).tagsMap, [ [ 'a', 'b' ] ]);
    await client.oss.deleteObjectTagging({ ...at, key: 'copy.txt' });
    assert.deepEqual((await client.oss.getObjectTagging({ ...at, key: 'copy.txt' })).tagsMap, []);

    const { uploadId } = await client.oss.createMultipartUpload({ ...at, key: 'parts' });
    const parts = [];
    for (const [ i, body ] of [ 'one ', 'two' ].entries()) {
      const { etag } = await client.oss.uploadPart({ ...at, key: 'parts', uploadId, partNumber: i + 1, body: Readable.from([ Buffer.from(body) ]), contentLength: body.length });
      parts.push({ etag, partNumber: i + 1 });
    }
    assert.deepEqual((await client.oss.listParts({ ...at, key: 'parts', uploadId })).partsList.map(p => p.size), [ 4, 3 ]);
    assert.equal((await client.oss.listMultipartUploads({ ...at })).uploadsList.length, 1);
    await client.oss.completeMultipartUpload({ ...at, key: 'parts', uploadId, parts });
    assert.equal((await object('parts')).text, 'one two');

    const copying = { ...at, key: 'copied parts', ...await client.oss.createMultipartUpload({ ...at, key: 'copied parts' }) };
    const { copyPartResult } = await client.oss.uploadPartCopy({ ...at, key: 'copied parts', uploadId: copying.uploadId, partNumber: 1, copySource: { copySourceBucket: 'shop', copySourceKey: 'parts' }, startPosition: 4, partSize: 3 });
    await client.oss.completeMultipartUpload({ ...at, key: 'copied parts', uploadId: copying.uploadId, parts: [ { etag: copyPartResult.etag, partNumber: 1 } ] });
    assert.equal((await object('copied parts')).text, 'two');
    const given = await client.oss.createMultipartUpload({ ...at, key: 'given up' });
    await client.oss.abortMultipartUpload({ ...at, key: 'given up', uploadId: given.uploadId });
    assert.equal((await client.oss.listMultipartUploads({ ...at })).uploadsList.length, 0);

    let { appendPosition } = await client.oss.appendObject({ ...at, key: 'log', body: Readable.from([ Buffer.from('one') ]) });
    ({ appendPosition } = await client.oss.appendObject({ ...at, key: 'log', position: appendPosition, body: Readable.from([ Buffer.from('two') ]) }));
    assert.equal(appendPosition, 6);
    assert.equal((await object('log')).text, 'onetwo');

    await client.oss.delete({ ...at, key: 'copy.txt' });
    await assert.rejects(() => object('copy.txt'), /NoSuchKey/);
    const gone = await client.oss.deleteObjects({ ...at, objects: [ { key: 'log' }, { key: 'parts' } ] });
    assert.equal(gone.deletedList.length, 2);
    await rejects(() => client.oss.getObjectCannedAcl({ ...at, key: 'test.txt' }), 12, /access control lists/);
    await rejects(() => client.oss.putObjectCannedAcl({ ...at, key: 'test.txt', acl: 'private' }), 12, /access control lists/);
    await rejects(() => client.oss.listObjectVersions({ ...at }), 12, /version/);
    await rejects(() => client.oss.restoreObject({ ...at, key: 'test.txt' }), 12, /archive/);
    await rejects(() => client.oss.signUrl({ ...at, key: 'test.txt', method: 'GET', expiredInSec: 60 }), 12, /./); // a folder has no URLs
    await rejects(() => client.oss.updateDownloadBandwidthRateLimit({ ...at, averageRateLimitInBitsPerSec: 1 }), 12, /./);
    await rejects(() => client.oss.updateUploadBandwidthRateLimit({ ...at, averageRateLimitInBitsPerSec: 1 }), 12, /./);
    await rejects(() => client.oss.put({ ...at, key: 'x', body: Readable.from([ Buffer.from('x') ]), contentLength: 1, acl: 'public-read' }), 12, /^acl is not done here/);
  },

  async cryption() {
    const sealed = await client.cryption.encrypt({ plainText: 'attack at dawn', keyId: 'main' });
    assert.equal(sealed.keyId, 'main');
    const opened = await client.cryption.decrypt({ cipherText: Buffer.from(sealed.cipherText, 'base64') });
    assert.equal(opened.plainText.toString(), 'attack at dawn');
    await rejects(() => client.cryption.encrypt({ plainText: 'x', keyId: 'none' }), 5, /^encrypt fail,err: /);
    await rejects(() => client.cryption.encrypt({ plainText: 'x' }), 3, /^key_id is empty/);
  },

  // What the package brings generated clients for, and no methods of its own.
  async generated() {
    const require = createRequire(import.meta.url);
    const load = name => ({ ...require(`layotto/proto/${name}_pb.js`), ...require(`layotto/proto/${name}_grpc_pb.js`) });
    const make = (Message, fields) => {
      const m = new Message();
      for (const [ name, value ] of Object.entries(fields)) m[`set${name}`](value);
      return m;
    };
    const address = `${process.env.runtime_GRPC_HOST}:${process.env.runtime_GRPC_PORT}`;
    const stub = Client => new Client(address, grpc.credentials.createInsecure());
    const ask = (stub, method, message) => new Promise((resolve, reject) => stub[method](message, (err, res) => err ? reject(err) : resolve(res)));

    const runtime = load('runtime/v1/runtime');
    const api = stub(runtime.RuntimeClient);
    const secret = await ask(api, 'getSecret', make(runtime.GetSecretRequest, { StoreName: 'secret_demo', Key: 'db:user' }));
    assert.deepEqual(secret.getDataMap().toObject(), [ [ 'db:user', 'loam' ] ]);
    const secrets = await ask(api, 'getBulkSecret', make(runtime.GetBulkSecretRequest, { StoreName: 'secret_demo' }));
    assert.equal(secrets.getDataMap().get('db:user').getSecretsMap().get('db:user'), 'loam');

    const [ StoreName, ResourceId ] = [ 'lock_demo', `alive-${stamp}` ];
    assert.equal(await client.lock.tryLock({ storeName: StoreName, resourceId: ResourceId, lockOwner: 'me', expire: 2 }), true);
    const alive = LockOwner => ask(api, 'lockKeepAlive', make(runtime.LockKeepAliveRequest, { StoreName, ResourceId, LockOwner, Expire: 600 }));
    assert.equal((await alive('me')).getStatus(), 0);
    assert.equal((await alive('you')).getStatus(), 2); // it belongs to another
    await sleep(2500); // the first lease would be over
    assert.equal(await client.lock.tryLock({ storeName: StoreName, resourceId: ResourceId, lockOwner: 'you', expire: 2 }), false);

    const meta = await ask(api, 'getFileMeta', make(runtime.GetFileMetaRequest, { Request: make(runtime.FileRequest, { StoreName: 'file_demo', Name: 'docs/large' }) }));
    assert.equal(meta.getSize(), 300_003);
    assert(meta.getLastModified());

    const queue = load('extension/v1/delay_queue/delay_queue');
    const late = (Data, DelayInSeconds) => ask(stub(queue.DelayQueueClient), 'publishDelayMessage', make(queue.DelayMessageRequest, {
      ComponentName: 'pub_subs_demo', Topic: 'later', Data: Buffer.from(JSON.stringify(Data)), DataContentType: 'application/json', DelayInSeconds,
    }));
    const begun = Date.now();
    const id = (await late({ n: 2 }, 2)).getMessageId();
    await late({ n: 1 }, 0);
    await until('both messages are there', () => delayed.length >= 2);
    assert.deepEqual(delayed.map(d => d.data.n), [ 1, 2 ]);
    assert(delayed[1].at - begun >= 1900); // the clocks of timers and of dates are two
    assert.equal(delayed[1].id, id);

    const life = load('runtime/v1/lifecycle');
    const apply = (Kind, Name, metadata) => {
      const config = make(life.ComponentConfig, { Kind, Name });
      for (const [ k, v ] of Object.entries(metadata)) config.getMetadataMap().set(k, v);
      return ask(stub(life.LifecycleClient), 'applyConfiguration', make(life.DynamicConfiguration, { ComponentConfig: config }));
    };
    await apply('hellos', 'helloworld', { hello: 'goodbye' });
    assert.equal(await client.hello.sayHello({ serviceName: 'helloworld' }), 'goodbye');
    await rejects(() => apply('state', 'state_demo', { a: 'b' }), 12, /change that/);

    const email = load('extension/v1/email/email');
    await rejects(() => ask(stub(email.EmailServiceClient), 'sendEmail', new email.SendEmailRequest()), 12, /./);
    const phone = load('extension/v1/phone/phone');
    await rejects(() => ask(stub(phone.PhoneCallServiceClient), 'sendVoiceWithTemplate', new phone.SendVoiceWithTemplateRequest()), 12, /./);
  },

  async actuator() {
    const get = async path => {
      const res = await fetch(`http://127.0.0.1:${process.env.ACTUATOR_PORT}${path}`);
      return [ res.status, await res.json() ];
    };
    for (const probe of [ 'liveness', 'readiness' ]) {
      const [ status, body ] = await get(`/actuator/health/${probe}`);
      assert.equal(status, 200);
      assert.equal(body.status, 'UP');
    }
    const [ status, info ] = await get('/actuator/info');
    assert.equal(status, 200);
    assert.equal(info.app.name, 'Loam');
  },
};

await until('the API answers', () => client.hello.sayHello().then(() => true, () => false));
for (const [ name, part ] of Object.entries(parts)) {
  await part();
  console.log(`ok ${name}`);
}
client.close();
await server.close().catch(() => {});
app.close();
app.closeAllConnections();
process.exit(0);
