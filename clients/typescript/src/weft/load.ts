// Counts calls for heartbeats, and refuses what is too much at a time and what comes while operators pause the agent.
import { ServerInterceptingCall, ServerInterceptor, ServiceError, status as codes } from "@grpc/grpc-js";
import { failure, PAUSED, TOO_MANY } from "./contract";
import { InstanceState, Load } from "../gen/weft/v1/agent";
import { Hold } from "../gen/weft/v1/lifecycle";

const WEIGHT = 0.1; // of a new call in the average latency
const FAULTS = new Set([codes.UNKNOWN, codes.INTERNAL, codes.UNAVAILABLE, codes.DATA_LOSS, codes.DEADLINE_EXCEEDED]);

export class LoadMeter {
  private inFlight = 0;
  private calls = 0;
  private failures = 0;
  private latency = 0; // seconds

  private hold?: Hold; // none: nothing holds the agent back

  constructor(private limit: number) {}

  /** Sets how many calls are worked on at a time, and whether any is let in. Those that run go on. */
  obey(limit: number, hold?: Hold): void {
    this.limit = limit;
    this.hold = hold;
  }

  report(): Load {
    const seconds = Math.floor(this.latency);
    const latencyEwma = { seconds: BigInt(seconds), nanos: Math.round((this.latency - seconds) * 1e9) };
    return { inFlight: this.inFlight, calls: BigInt(this.calls), failures: BigInt(this.failures), latencyEwma };
  }

  private refusal(): ServiceError | undefined {
    if (this.hold?.state === InstanceState.INSTANCE_STATE_PAUSED) {
      const why = this.hold.reason && `: ${this.hold.reason}`;
      return failure(codes.UNAVAILABLE, PAUSED, `An operator has paused the agent${why}.`);
    }
    if (this.inFlight < this.limit) return undefined;
    return failure(codes.RESOURCE_EXHAUSTED, TOO_MANY, `This instance works on ${this.limit} calls already; try again.`);
  }

  readonly interceptor: ServerInterceptor = (method, call) => {
    if (method.path.startsWith("/grpc.")) return new ServerInterceptingCall(call); // health checks are no work
    const began = process.hrtime.bigint();
    const refused = this.refusal();
    this.inFlight++;
    let counted = false;
    const done = (code: codes) => {
      if (counted) return;
      counted = true;
      this.inFlight--;
      if (refused) return;
      const took = Number(process.hrtime.bigint() - began) / 1e9;
      this.latency = this.calls++ === 0 ? took : this.latency + WEIGHT * (took - this.latency);
      if (FAULTS.has(code)) this.failures++;
    };
    return new ServerInterceptingCall(call, {
      start: (next) =>
        next({
          onReceiveMetadata: (metadata, proceed) => {
            if (refused) call.sendStatus(refused);
            else proceed(metadata);
          },
          onCancel: () => done(codes.CANCELLED),
        }),
      sendStatus: (status, next) => {
        done(status.code ?? codes.UNKNOWN);
        next(status);
      },
    });
  };
}
