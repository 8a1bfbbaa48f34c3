// Counts calls for heartbeats, and refuses what is too much at a time.
import { ServerInterceptingCall, ServerInterceptor, status as codes } from "@grpc/grpc-js";
import { failure, TOO_MANY } from "./contract";
import { Load } from "../gen/weft/v1/agent";

const WEIGHT = 0.1; // of a new call in the average latency
const FAULTS = new Set([codes.UNKNOWN, codes.INTERNAL, codes.UNAVAILABLE, codes.DATA_LOSS, codes.DEADLINE_EXCEEDED]);

export class LoadMeter {
  private inFlight = 0;
  private calls = 0;
  private failures = 0;
  private latency = 0; // seconds

  constructor(readonly limit: number) {}

  report(): Load {
    const seconds = Math.floor(this.latency);
    const latencyEwma = { seconds: BigInt(seconds), nanos: Math.round((this.latency - seconds) * 1e9) };
    return { inFlight: this.inFlight, calls: BigInt(this.calls), failures: BigInt(this.failures), latencyEwma };
  }

  readonly interceptor: ServerInterceptor = (method, call) => {
    if (method.path.startsWith("/grpc.")) return new ServerInterceptingCall(call); // health checks are no work
    const began = process.hrtime.bigint();
    const full = this.inFlight >= this.limit;
    this.inFlight++;
    let counted = false;
    const done = (code: codes) => {
      if (counted) return;
      counted = true;
      this.inFlight--;
      if (full) return;
      const took = Number(process.hrtime.bigint() - began) / 1e9;
      this.latency = this.calls++ === 0 ? took : this.latency + WEIGHT * (took - this.latency);
      if (FAULTS.has(code)) this.failures++;
    };
    return new ServerInterceptingCall(call, {
      start: (next) =>
        next({
          onReceiveMetadata: (metadata, proceed) => {
            const why = `This instance works on ${this.limit} calls already; try again.`;
            if (full) call.sendStatus(failure(codes.RESOURCE_EXHAUSTED, TOO_MANY, why));
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
