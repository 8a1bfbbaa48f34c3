// What every client must see at every transport. Each case throws where it does not.

import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { ErrorInfoSchema } from "./gen/google/rpc/error_details_pb.js";
import { EchoService } from "./gen/weft/echo/v1/echo_pb.js";

const LONG = "long ".repeat(1000);

function same(found, expected) {
  const [a, b] = [JSON.stringify(found), JSON.stringify(expected)];
  if (a !== b) throw new Error(`found ${a}, expected ${b}`);
}

async function failure(call) {
  try {
    await call();
  } catch (thrown) {
    if (thrown instanceof ConnectError) return thrown;
    throw thrown;
  }
  throw new Error("nothing was thrown");
}

async function all(stream, into = []) {
  for await (const message of stream) into.push(message.number);
  return into;
}

const seconds = (count) => ({ seconds: BigInt(count), nanos: 0 });
const milliseconds = (count) => ({ seconds: 0n, nanos: count * 1_000_000 });

const CASES = {
  async unary(client) {
    same((await client.say({ text: "hello ä" })).text, "hello ä");
  },
  async "unary without GET"(client) {
    same((await client.sayOnce({ say: { text: "once" } })).said.text, "once");
  },
  async "large messages"(client) {
    same((await client.say({ text: LONG })).text, LONG);
  },
  async "many calls at once"(client) {
    const texts = [...Array(30).keys()].map((number) => `n${number}`);
    const said = await Promise.all(texts.map((text) => client.say({ text })));
    same(said.map((each) => each.text), texts);
  },
  async "server streaming"(client) {
    same(await all(client.repeat({ text: LONG, count: 5 })), [0, 1, 2, 3, 4]);
    same(await all(client.repeat({ count: 0 })), []);
  },
  async "messages come as they are made"(client) {
    const began = Date.now();
    for await (const message of client.repeat({ count: 50, pause: milliseconds(100) })) {
      if (message.number === 1) break;
    }
    if (Date.now() - began > 3000) throw new Error("two messages took as long as fifty");
  },
  async errors(client) {
    for (let code = 1; code <= 16; code++) {
      const error = await failure(() => client.say({ failWith: code }));
      same([code, error.code], [code, code]);
      // Of an agent that is late or away the gateway speaks in its own words.
      if (![Code.DeadlineExceeded, Code.Unavailable].includes(code)) {
        same(error.rawMessage, "The caller asked for this failure.");
      }
    }
    const [info] = (await failure(() => client.say({ failWith: 5 }))).findDetails(ErrorInfoSchema);
    same([info.domain, info.reason], ["weft.dev", "NOT_FOUND"]);
  },
  async "an error after messages"(client) {
    const numbers = [];
    const error = await failure(() => all(client.repeat({ count: 2, failWith: 9 }), numbers));
    same([numbers, error.code], [[0, 1], Code.FailedPrecondition]);
    same(error.findDetails(ErrorInfoSchema).length, 1);
  },
  async "an error before messages"(client) {
    const error = await failure(() => all(client.repeat({ count: -1 })));
    same(error.code, Code.InvalidArgument);
  },
  async "a deadline"(client) {
    const error = await failure(() => client.say({ delay: seconds(20) }, { timeoutMs: 200 }));
    same(error.code, Code.DeadlineExceeded);
    const late = await failure(() =>
      all(client.repeat({ count: 100, pause: milliseconds(100) }, { timeoutMs: 300 })),
    );
    same(late.code, Code.DeadlineExceeded);
    const { timeLeft } = await client.say({}, { timeoutMs: 5000 });
    if (timeLeft.seconds > 5n) throw new Error("the agent was not told of the deadline");
  },
  async "cancellation"(client) {
    for (const call of [
      (signal) => client.say({ delay: seconds(30) }, { signal }),
      (signal) => all(client.repeat({ count: 600, pause: milliseconds(50) }, { signal })),
    ]) {
      const stop = new AbortController();
      setTimeout(() => stop.abort(), 500);
      same((await failure(() => call(stop.signal))).code, Code.Canceled);
    }
  },
  async "headers both ways"(client) {
    let headers;
    const trace = "0af7651916cd43dd8448eb211c80319c";
    await client.say({}, {
      headers: { traceparent: `00-${trace}-b7ad6b7169203331-00`, "x-metadata": "a" },
      onHeader: (given) => { headers = given; },
    });
    same(headers.get("traceparent").split("-")[1], trace);
  },
  async "streams of requests are refused with a hint"(client) {
    const requests = async function* () { yield { text: "a" }; };
    const error = await failure(() => client.gather(requests()));
    same(error.code, Code.Unimplemented);
  },
};

// Runs all cases over a transport; what each came to, "ok" or what was wrong. `skip` are names.
export async function run(transport, skip = []) {
  const client = createClient(EchoService, transport);
  const results = {};
  for (const [name, test] of Object.entries(CASES)) {
    if (skip.includes(name)) continue;
    try {
      await test(client);
      results[name] = "ok";
    } catch (thrown) {
      results[name] = String(thrown);
    }
  }
  return results;
}
