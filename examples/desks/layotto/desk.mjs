// The order desk as it was written for Layotto: the same business as ../dapr, over Layotto's own SDK. Events come in by
// Layotto's callback, requests by HTTP.
import { createServer } from 'node:http';
import layotto from 'layotto';

const name = 'layotto-desk';
const { Client, Server } = layotto;
const client = new Client(process.env.runtime_GRPC_PORT, process.env.runtime_GRPC_HOST);
const callback = new Server(process.env.appcallback_GRPC_PORT);

const json = (value) => Buffer.from(JSON.stringify(value));
const FIRST_WRITE = 1, STRONG = 2;

async function get(key) {
  const item = await client.state.get({ storeName: 'statestore', key });
  return item?.value.length ? JSON.parse(Buffer.from(item.value).toString()) : undefined;
}

// take keeps an order that nobody has taken yet, and tells all desks.
async function take(order) {
  if (!order?.id || !order.item || !(order.count >= 1)) {
    return [400, 'an order looks like {"id":"a1","item":"apple","count":2}'];
  }
  const taken = { id: order.id, item: order.item, count: order.count, desk: name, status: 'open' };
  try {
    await client.state.save({
      storeName: 'statestore',
      states: { key: `order/${order.id}`, value: json(taken), options: { concurrency: FIRST_WRITE, consistency: STRONG } },
    });
  } catch (e) {
    if (e.code === 10 || e.code === 6 || e.code === 9) return [409, 'there is an order of that id'];
    throw e;
  }
  await client.pubsub.publish({ pubsubName: 'pubsub', topic: 'orders', data: taken });
  return [200, taken];
}

// told is an event: an order was taken somewhere. This desk's own is confirmed by it.
async function told(order) {
  const options = { concurrency: 2, consistency: STRONG };
  const states = [{ key: `seen/${order.id}`, value: json({ desk: order.desk }), options }];
  if (order.desk === name) {
    states.push({ key: `order/${order.id}`, value: json({ ...order, status: 'confirmed' }), options });
  }
  await client.state.save({ storeName: 'statestore', states });
}

async function ask(desk, id) {
  const answer = await client.invoker.invoke({ id: desk, method: `/orders/${id}`, httpVerb: 1 });
  return [200, answer.content];
}

async function answer(req) {
  const path = req.url.split('/').slice(1).map(decodeURIComponent);
  if (req.method === 'POST' && path[0] === 'orders') {
    let body = '';
    for await (const part of req) body += part;
    return take(JSON.parse(body));
  }
  if (path[0] === 'orders') return shown(await get(`order/${path[1]}`));
  if (path[0] === 'seen') return shown(await get(`seen/${path[1]}`));
  if (path[0] === 'ask') return ask(path[1], path[2]);
  return [404, 'no such page'];
}

const shown = (value) => (value ? [200, value] : [404, 'no such order']);

callback.pubsub.addPubSubSubscription('pubsub', 'orders');
callback.pubsub.subscribe('pubsub', 'orders', (data) => told(typeof data === 'string' ? JSON.parse(data) : data));
await callback.start();
createServer((req, res) => {
  answer(req).catch((e) => [502, String(e)]).then(([status, value]) => {
    const text = typeof value === 'string';
    res.writeHead(status, { 'content-type': text ? 'text/plain' : 'application/json' });
    res.end(text ? value : JSON.stringify(value));
  });
}).listen(Number(process.env.PORT ?? 6003), '127.0.0.1');
