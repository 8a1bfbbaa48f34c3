// What speaks with the mesh: one lease at the registry, one stream of messages from a broker, each made anew when lost.
import { setTimeout as sleep } from "node:timers/promises";
import { ChannelCredentials, credentials, ServiceError, status as codes } from "@grpc/grpc-js";
import { BrokerServiceClient, ConsumeRequest } from "../gen/weft/v1/broker";
import { InstanceState } from "../gen/weft/v1/agent";
import { MessageDelivery } from "../gen/weft/v1/message";
import { DeepPartial, RegisterRequest, RegisterResponse, RegistryServiceClient } from "../gen/weft/v1/registry";
import { Agent } from "./agent";
import { CHANNEL, details, milliseconds, PERMANENT, publish, replyTo, TOO_MANY } from "./contract";

const FIRST_PAUSE = 100; // milliseconds, doubled up to the last
const LAST_PAUSE = 2_000;
const ANSWER_WITHIN = 5_000; // a registry that hangs is left like one that is gone
const MOST_IN_HAND = 100; // messages; what one replica holds, the others do not get

type Part<C> = new (address: string, credentials: ChannelCredentials, options: object) => C;

/** Uses a part of the mesh until the agent drains, the next replica when one is lost. What it throws is final. */
async function keep<C extends { close(): void }>(
  agent: Agent, name: string, part: Part<C>, addresses: string[],
  use: (agent: Agent, client: C, works: () => void) => Promise<void>,
): Promise<void> {
  for (let pause = FIRST_PAUSE, n = 0; !agent.draining.aborted; n++) {
    const client = new part(addresses[n % addresses.length], credentials.createInsecure(), CHANNEL);
    try {
      await use(agent, client, () => {
        pause = FIRST_PAUSE;
        agent.connected(name);
      });
    } catch (failed) {
      if ((failed as ServiceError).code === codes.INVALID_ARGUMENT) throw failed;
      if (!agent.draining.aborted) console.warn(`${name} lost, going on with the next: ${failed}`);
    } finally {
      client.close();
    }
    await sleep(pause * (0.5 + Math.random() / 2), null, { signal: agent.draining }).catch(() => null);
    pause = Math.min(2 * pause, LAST_PAUSE);
  }
}

export const keepRegistered = (agent: Agent) => keep(agent, "registry", RegistryServiceClient, [agent.settings.registry], hold);
export const keepConsuming = (agent: Agent, brokers: string[]) => keep(agent, "broker", BrokerServiceClient, brokers, consume);

/** Keeps the agent registered, over one stream: one lease. The next one goes on with the same instance. */
async function hold(agent: Agent, client: RegistryServiceClient, works: () => void): Promise<void> {
  const stream = client.register();
  const answers = stream[Symbol.asyncIterator]();
  const ask = async (request?: DeepPartial<RegisterRequest>): Promise<RegisterResponse> => {
    const late = setTimeout(() => stream.cancel(), ANSWER_WITHIN);
    if (request && stream.writable) stream.write(RegisterRequest.fromPartial(request));
    try {
      const answer = await answers.next();
      if (answer.done) throw new Error("the registry ended the stream");
      return answer.value;
    } finally {
      clearTimeout(late);
    }
  };
  stream.on("error", () => null); // the answer that is awaited tells it
  try {
    const { granted } = await ask({ registration: { instances: [agent.instance] } });
    await ask(granted?.wantedDigests.length ? { descriptors: { sets: agent.contract.sets } } : undefined);
    works(); // and from here on callers find it
    const interval = milliseconds(granted?.heartbeatInterval, 1_000);
    let event = AbortSignal.any([agent.draining, agent.stopped]);
    for (;;) {
      await sleep(interval, null, { signal: event }).catch(() => null);
      if (agent.stopped.aborted) {
        stream.write(RegisterRequest.fromPartial({ deregistration: {} }));
        stream.end();
        await ask().catch(() => null); // the registry ends the stream when it has taken this
        return;
      }
      if (agent.draining.aborted && event !== agent.stopped) {
        event = agent.stopped;
        await ask({ stateChange: { state: InstanceState.INSTANCE_STATE_DRAINING } }); // callers go elsewhere from now on
      } else {
        await ask({ report: { loads: { [agent.instance.instanceId]: agent.load.report() } } });
      }
    }
  } finally {
    stream.cancel();
  }
}

/**
 * Handles the messages of the agent's queue, over one stream. What is not settled when that breaks is delivered again at
 * once, to the next stream of this session or to another replica: at least once.
 */
async function consume(agent: Agent, client: BrokerServiceClient, works: () => void): Promise<void> {
  const gone = new AbortController(); // whoever still handles a message of this stream gives up
  const stream = client.consume();
  const inHand = new Map<string, Promise<void>>();
  const say = (frame: DeepPartial<ConsumeRequest>) => {
    if (stream.writable) stream.write(ConsumeRequest.fromPartial(frame));
  };
  const { name, instance: { instanceId } } = agent;
  say({ open: { queue: name, consumer: instanceId, session: instanceId, declare: true }, credit: MOST_IN_HAND });
  const leave = async () => {
    await Promise.all(inHand.values());
    say({ leave: true });
    stream.end(); // the broker ends the stream when all is safe
  };
  agent.draining.addEventListener("abort", leave, { signal: gone.signal });
  agent.stopped.addEventListener("abort", () => stream.cancel(), { signal: gone.signal });
  let extending: NodeJS.Timeout | undefined;
  try {
    for await (const frame of stream) {
      if (frame.draining && !agent.draining.aborted) throw new Error("the broker stops");
      if (frame.opened) {
        works();
        const third = milliseconds(frame.opened.visibilityTimeout, 30_000) / 3; // handlers may take longer than that
        extending = setInterval(() => say({ extensions: [...inHand.keys()] }), third);
      }
      for (const delivery of frame.deliveries as MessageDelivery[]) {
        const { leaseId } = delivery;
        if (agent.draining.aborted) say({ nack: [{ leaseId, unused: true }] }); // it was not begun: no attempt
        else inHand.set(leaseId, settle(agent, client, delivery, gone.signal).then((settlement) => {
          inHand.delete(leaseId);
          say({ ...settlement, credit: 1 });
        }));
      }
    }
  } finally {
    clearInterval(extending);
    gone.abort();
    stream.on("error", () => null);
    stream.cancel();
  }
}

/** Handles a message as a call of the skill it is for, and says what became of it. */
async function settle(
  agent: Agent, client: BrokerServiceClient, delivery: MessageDelivery, gone: AbortSignal,
): Promise<DeepPartial<ConsumeRequest>> {
  const { leaseId, message } = delivery;
  try {
    const payload = await agent.call(delivery, gone);
    if (message?.replyTo) await publish(client, replyTo(message, agent.name, payload));
    return { complete: [{ leaseId, reply: { payload } }] };
  } catch (failed) {
    const { code, details: error } = failed as ServiceError;
    const { reason, status } = details(failed as ServiceError);
    if (PERMANENT.has(code)) return { reject: [{ leaseId, reason, error, reply: { error: status } }] };
    if (reason !== TOO_MANY) return { nack: [{ leaseId, error: error || String(failed) }] };
    return { nack: [{ leaseId, error, unused: true, delay: { nanos: FIRST_PAUSE * 1e6 } }] }; // that is no attempt
  }
}
