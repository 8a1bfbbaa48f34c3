// What speaks with the mesh: one lease at the registry, one stream of messages from a broker, each made anew when lost.
import { setTimeout as sleep } from "node:timers/promises";
import { ChannelCredentials, ClientDuplexStream, credentials, ServiceError, status as codes } from "@grpc/grpc-js";
import { BrokerServiceClient, ConsumeRequest } from "../gen/weft/v1/broker";
import { InstanceState } from "../gen/weft/v1/agent";
import { MessageDelivery } from "../gen/weft/v1/message";
import { DeepPartial, RegisterRequest, RegisterResponse, RegistryServiceClient } from "../gen/weft/v1/registry";
import { Agent } from "./agent";
import { CHANNEL, details, milliseconds, PERMANENT, publish, REFUSALS, replyTo } from "./contract";

const FIRST_PAUSE = 100; // milliseconds, doubled up to the last
const LAST_PAUSE = 2_000;
const ANSWER_WITHIN = 5_000; // a registry that hangs is left like one that is gone
const MOST_IN_HAND = 100; // messages; what one replica holds, the others do not get

/** Does something when a signal comes, or has come, unless what it belongs to is gone. */
const when = (signal: AbortSignal, gone: AbortSignal, what: () => unknown) =>
  signal.aborted ? what() : signal.addEventListener("abort", what, { signal: gone });
const leave = (stream: ClientDuplexStream<never, unknown>, gone: AbortController) => {
  gone.abort();
  stream.on("error", () => null);
  stream.cancel();
};

type Part<C> = new (address: string, credentials: ChannelCredentials, options: object) => C;

/** Uses a part of the mesh until `end`, the next replica when one is lost. What it throws is final. */
async function keep<C extends { close(): void }>(
  agent: Agent, end: AbortSignal, name: string, part: Part<C>, addresses: string[],
  use: (agent: Agent, end: AbortSignal, client: C, works: () => void) => Promise<void>,
): Promise<void> {
  for (let pause = FIRST_PAUSE, n = 0; !end.aborted; n++) {
    const client = new part(addresses[n % addresses.length], credentials.createInsecure(), CHANNEL);
    try {
      await use(agent, end, client, () => {
        pause = FIRST_PAUSE;
        agent.connected(name);
      });
    } catch (failed) {
      if ((failed as ServiceError).code === codes.INVALID_ARGUMENT) throw failed;
      if (!end.aborted) console.warn(`${name} lost, going on with the next: ${failed}`);
    } finally {
      client.close();
    }
    await sleep(pause * (0.5 + Math.random() / 2), null, { signal: end }).catch(() => null);
    pause = Math.min(2 * pause, LAST_PAUSE);
  }
}

export const keepRegistered = (agent: Agent) =>
  keep(agent, agent.draining, "registry", RegistryServiceClient, [agent.settings.registry], hold);
export const keepConsuming = (agent: Agent, end: AbortSignal, brokers: string[]) =>
  keep(agent, end, "broker", BrokerServiceClient, brokers, consume);

/** Keeps the agent registered, over one stream: one lease. The next one goes on with the same instance. */
async function hold(agent: Agent, draining: AbortSignal, client: RegistryServiceClient, works: () => void): Promise<void> {
  const gone = new AbortController();
  const stream = client.register();
  const say = (request: DeepPartial<RegisterRequest>) => {
    if (stream.writable) stream.write(RegisterRequest.fromPartial(request));
  };
  let [beat, silence] = [0, setTimeout(() => stream.cancel(), ANSWER_WITHIN)];
  let beating: NodeJS.Timeout | undefined;
  const { instanceId } = agent.instance;
  say({ registration: { instances: [agent.instance] } });
  try {
    for await (const { granted, registered, directive } of stream as AsyncIterable<RegisterResponse>) {
      if (granted?.wantedDigests.length) say({ descriptors: { sets: agent.contract.sets } });
      if (granted) beat = milliseconds(granted.heartbeatInterval, 1_000);
      clearTimeout(silence);
      silence = setTimeout(() => stream.cancel(), beat + ANSWER_WITHIN);
      if (registered) {
        works(); // and from here on callers find it
        beating = setInterval(() => say({ report: { loads: { [instanceId]: agent.load.report() } } }), beat);
        const drain = { stateChange: { state: InstanceState.INSTANCE_STATE_DRAINING } };
        when(draining, gone.signal, () => say(drain)); // callers go elsewhere from now on
        when(agent.stopped, gone.signal, () => say({ deregistration: {} })); // and the registry ends the stream
      }
      if (directive) {
        const applied = (agent.instance.applied = agent.obey(directive)); // a registry that comes later is told, too
        say({ applied: { instanceId, applied } });
      }
    }
    throw new Error("the registry ended the stream");
  } finally {
    clearTimeout(silence);
    clearInterval(beating);
    leave(stream, gone);
  }
}

/**
 * Handles the messages of the agent's queue, over one stream. What is not settled when that breaks is delivered again at
 * once, to the next stream of this session or to another replica: at least once.
 */
async function consume(agent: Agent, end: AbortSignal, client: BrokerServiceClient, works: () => void): Promise<void> {
  const gone = new AbortController(); // whoever still handles a message of this stream gives up
  const stream = client.consume();
  const inHand = new Map<string, Promise<void>>();
  const say = (frame: DeepPartial<ConsumeRequest>) => {
    if (stream.writable) stream.write(ConsumeRequest.fromPartial(frame));
  };
  const { name, instance: { instanceId } } = agent;
  say({ open: { queue: name, consumer: instanceId, session: instanceId, declare: true }, credit: MOST_IN_HAND });
  when(end, gone.signal, async () => {
    await Promise.all(inHand.values());
    say({ leave: true }); // which is how credit is taken back; the broker ends the stream when all is safe
  });
  when(agent.stopped, gone.signal, () => stream.cancel());
  let extending: NodeJS.Timeout | undefined;
  try {
    for await (const frame of stream) {
      if (frame.draining && !end.aborted) throw new Error("the broker stops");
      if (frame.opened) {
        works();
        const third = milliseconds(frame.opened.visibilityTimeout, 30_000) / 3; // handlers may take longer than that
        extending = setInterval(() => say({ extensions: [...inHand.keys()] }), third);
      }
      for (const delivery of frame.deliveries as MessageDelivery[]) {
        const { leaseId } = delivery;
        if (end.aborted) say({ nack: [{ leaseId, unused: true }] }); // it was not begun: no attempt
        else inHand.set(leaseId, settle(agent, client, delivery, gone.signal).then((settlement) => {
          inHand.delete(leaseId);
          say({ ...settlement, credit: 1 });
        }));
      }
    }
  } finally {
    clearInterval(extending);
    leave(stream, gone);
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
    if (!REFUSALS.has(reason)) return { nack: [{ leaseId, error: error || String(failed) }] };
    return { nack: [{ leaseId, error, unused: true, delay: { nanos: FIRST_PAUSE * 1e6 } }] }; // that is no attempt
  }
}
