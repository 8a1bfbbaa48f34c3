// Makes a gRPC server an agent of the mesh: found by its name, checked, drained, and sent durable messages.
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { Client, credentials, Server, ServerCredentials, status } from "@grpc/grpc-js";
import { HealthImplementation } from "grpc-health-check";
import { Applied, Instance } from "../gen/weft/v1/agent";
import { Directive } from "../gen/weft/v1/lifecycle";
import { MessageDelivery } from "../gen/weft/v1/message";
import { CHANNEL, Contract, failure, MOST_BYTES, Served, told } from "./contract";
import { Control } from "./control";
import { LoadMeter } from "./load";
import { keepConsuming, keepRegistered } from "./mesh";

const PROPAGATION = 100; // milliseconds; callers need to hear of a drain before the port may close

export interface Settings {
  /** Under which callers find it. */
  name: string;
  /** Semantic version of its code. */
  version: string;
  /** "host:port". */
  registry: string;
  /** "host:port" of each; none: it gets calls only. */
  brokers: string[];
  /** "IP:port" to serve at; port 0 takes any. */
  listen: string;
  /** "IP:port" at which others reach it; by default where it listens. */
  advertise?: string;
  /** FileDescriptorSet of what it serves. */
  descriptors: string;
  /** Calls it works on at a time. */
  maxConcurrency?: number;
  /** How long calls may take when it drains, in milliseconds. */
  grace?: number;
}

/** One instance of an agent. */
export class Agent {
  readonly name: string;
  readonly contract: Contract;
  readonly load: LoadMeter;
  private readonly control = new Control();
  private readonly limit: number;
  instance = Instance.fromPartial({ instanceId: randomUUID() });
  private readonly server: Server;
  private readonly health: HealthImplementation;
  private readonly drained = new AbortController();
  private readonly left = new AbortController();
  private own?: Client;

  constructor(readonly settings: Settings, served: Served[]) {
    this.name = settings.name;
    this.contract = new Contract(settings.descriptors, served);
    this.limit = settings.maxConcurrency ?? 1_000;
    this.load = new LoadMeter(this.limit);
    this.server = new Server({
      interceptors: [this.load.interceptor],
      "grpc.max_receive_message_length": MOST_BYTES,
    });
    for (const { definition, implementation } of served) this.server.addService(definition, implementation);
    this.health = new HealthImplementation();
    for (const service of ["", ...this.contract.services]) this.health.setStatus(service, "SERVING");
    this.health.addToServer(this.server);
  }

  get draining(): AbortSignal {
    return this.drained.signal;
  }

  get stopped(): AbortSignal {
    return this.left.signal;
  }

  /** Told when a part of the mesh has taken us, for the first time or again. */
  connected(part: string): void {
    console.warn(`connected to ${part} as ${this.name} at ${this.instance.address}`);
  }

  /** Does as operators say, for calls and messages from now on; answers with what of it this process cannot do. */
  obey({ version, hold, settings }: Directive): Applied {
    this.load.obey(settings?.maxConcurrency || this.limit, hold);
    this.control.obey(hold !== undefined);
    const others = { timeouts: settings?.timeouts, model: settings?.model, prompts: settings?.prompts };
    const said = Object.entries(others).filter(([, value]) => Object.keys(value ?? {}).length);
    return { version, problems: said.map(([name]) => `this process cannot be set ${name} while it runs`) };
  }

  /** Handles messages whenever operators let it, until the agent drains. */
  private async takeMessages(brokers: string[]): Promise<void> {
    while (!this.draining.aborted) await keepConsuming(this, await this.control.taking(this.draining), brokers);
  }

  /** Ends `serve`: callers are told to go elsewhere, calls and messages in hand are finished, the lease ends. */
  drain(): void {
    this.drained.abort();
  }

  /** Serves, registered, until `drain`. */
  async serve(): Promise<void> {
    const { listen, advertise, brokers, version, grace } = this.settings;
    const port = await new Promise<number>((done, failed) =>
      this.server.bindAsync(listen, ServerCredentials.createInsecure(), (error, found) => (error ? failed(error) : done(found))),
    );
    const address = listen.replace(/\d+$/, `${port}`);
    this.instance = Instance.fromPartial({
      instanceId: this.instance.instanceId, agent: this.name, address: advertise ?? address, version,
      maxConcurrency: this.limit,
      services: this.contract.services.map((name) => ({ name, descriptorDigest: this.contract.digest })),
    });
    this.own = new Client(address, credentials.createInsecure(), CHANNEL);
    const registered = keepRegistered(this);
    const consuming = brokers.length && this.contract.skills.size ? this.takeMessages(brokers) : null;
    const failed = Promise.all([registered, consuming]).then(() => null, (error) => error);
    const draining = new Promise<null>((done) => this.draining.addEventListener("abort", () => done(null)));
    const error = await Promise.race([failed, draining]);
    this.drain();
    const late = setTimeout(() => this.end(), grace ?? 10_000);
    await sleep(PROPAGATION);
    await consuming?.catch(() => null);
    for (const service of ["", ...this.contract.services]) this.health.setStatus(service, "NOT_SERVING");
    await new Promise((done) => this.server.tryShutdown(done));
    this.left.abort();
    await registered.catch(() => null);
    this.own.close();
    clearTimeout(late);
    if (error) throw error;
  }

  /** What is not done by now is cut off. */
  private end(): void {
    this.left.abort();
    this.server.forceShutdown();
  }

  /** Handles a message like a call: over the agent's own port, so that all that holds for calls holds for it. */
  call(delivery: MessageDelivery, gone: AbortSignal): Promise<Buffer> {
    const { method, payload } = delivery.message!;
    const timeout = this.contract.skills.get(method);
    if (timeout === undefined) {
      return Promise.reject(failure(status.UNIMPLEMENTED, "METHOD_UNKNOWN", `"${method}" takes no messages here`));
    }
    return new Promise((done, failed) => {
      const asIs = (bytes: Buffer) => bytes;
      const call = this.own!.makeUnaryRequest(
        method, asIs, asIs, Buffer.from(payload), told(delivery), { deadline: Date.now() + timeout },
        (error, answer) => {
          gone.removeEventListener("abort", cancel);
          if (error) failed(error);
          else done(answer!);
        },
      );
      const cancel = () => call.cancel();
      gone.addEventListener("abort", cancel);
    });
  }
}
