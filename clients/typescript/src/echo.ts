// Says back what it is told: an agent's own work, in terms of its contract alone.
import { setTimeout as sleep } from "node:timers/promises";
import { Metadata, ServerUnaryCall, status as codes } from "@grpc/grpc-js";
import { Duration } from "./gen/google/protobuf/duration";
import { EchoServiceServer, SayRequest, SayResponse } from "./gen/weft/echo/v1/echo";
import { Identity } from "./gen/weft/v1/identity";
import { failure, milliseconds } from "./weft/contract";

const MOST_PAUSE = 60_000; // milliseconds
const MOST_COUNT = 100_000;

export function echo(instance: string): EchoServiceServer {
  const say = async (call: ServerUnaryCall<unknown, unknown>, request: SayRequest): Promise<SayResponse> => {
    const left = Number(call.getDeadline()) - Date.now();
    const caller = callerOf(call.metadata);
    await pause("delay", request.delay);
    fail("fail_with", request.failWith);
    return SayResponse.fromPartial({ text: request.text, instance, caller, timeLeft: duration(left) });
  };
  return {
    say: (call, done) => {
      say(call, call.request).then((answer) => done(null, answer), done);
    },
    sayOnce: (call, done) => {
      say(call, SayRequest.fromPartial(call.request.say ?? {})).then((said) => done(null, { said }), done);
    },
    repeat: async (call) => {
      const { text, count, failWith, pause: span } = call.request;
      try {
        if (count < 0 || count > MOST_COUNT) throw invalid("count", "must be 0 to 100000");
        for (let number = 0; number < count && !call.cancelled; number++) {
          await pause("pause", span);
          // Whoever reads slowly is waited for.
          if (!call.write({ text, number })) await new Promise((drained) => call.once("drain", drained).once("cancelled", drained));
        }
        fail("fail_with", failWith);
        call.end();
      } catch (failed) {
        call.destroy(failed as Error);
      }
    },
    gather: (call, done) => {
      const texts: string[] = [];
      call.on("data", ({ text }) => texts.push(text));
      call.on("end", () => done(null, { texts }));
    },
    talk: (call) => {
      call.on("data", ({ text }) => call.write({ text }));
      call.on("end", () => call.end());
    },
  };
}

/**
 * Who calls, as the gateway or another agent found out. Whoever can reach this port can say so as well: agents that must
 * be sure check the signature (docs/identity.md).
 */
function callerOf(metadata: Metadata): string {
  const [said] = metadata.get("weft-identity-bin");
  try {
    return said ? Identity.decode(said as Buffer).subject : "";
  } catch {
    return "";
  }
}

function duration(span: number): Duration | undefined {
  if (!Number.isFinite(span)) return undefined; // the caller named no deadline
  const seconds = Math.floor(span / 1_000);
  return { seconds: BigInt(seconds), nanos: Math.round((span - seconds * 1_000) * 1e6) };
}

async function pause(field: string, span: Duration | undefined): Promise<void> {
  const length = milliseconds(span, 0);
  if (length < 0 || length > MOST_PAUSE) throw invalid(field, "must be 0 to 60 s");
  if (length) await sleep(length);
}

function fail(field: string, code: number): void {
  if (code < 0 || code > 16) throw invalid(field, "must be 0 to 16");
  if (code) throw failure(code, codes[code], "The caller asked for this failure.");
}

const invalid = (field: string, why: string) => failure(codes.INVALID_ARGUMENT, "INVALID_ARGUMENT", why, field);
