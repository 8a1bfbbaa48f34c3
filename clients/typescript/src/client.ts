// A client of the mesh in TypeScript: finds an agent by its name, and shows what a team needs to know of a call.
//
//   export GRPC_XDS_BOOTSTRAP_CONFIG=$(weft xds-bootstrap)
//   node out/client.js --agent echo
import { randomBytes } from "node:crypto";
import { parseArgs } from "node:util";
import { credentials, Metadata, ServiceError, status as codes } from "@grpc/grpc-js";
import * as xds from "@grpc/grpc-js-xds";
import { BadRequest, ErrorInfo } from "./gen/google/rpc/error_details";
import { Status } from "./gen/google/rpc/status";
import { EchoServiceClient, SayRequest, SayResponse } from "./gen/weft/echo/v1/echo";
import { DeepPartial } from "./gen/weft/v1/registry";

xds.register(); // makes the scheme xds: known

const { values } = parseArgs({
  options: {
    agent: { type: "string", default: "echo" },
    for: { type: "string", default: "3" }, // seconds to call it in the end
  },
});
// The registry tells where the agent is and which of its methods may be tried again; it is asked no more per call.
const echo = new EchoServiceClient(`xds:///${values.agent}`, credentials.createInsecure());

/** A call always has a deadline: `within` milliseconds from now. */
function say(request: DeepPartial<SayRequest>, within = 5_000, metadata = new Metadata()): Promise<SayResponse> {
  return new Promise((done, failed) =>
    echo.say(SayRequest.fromPartial(request), metadata, { deadline: Date.now() + within }, (error, answer) =>
      error ? failed(error) : done(answer),
    ),
  );
}

/** Prints a result as a line of JSON. */
const tell = (step: string, found: object) => console.log(JSON.stringify({ step, ...found }));

async function unary(): Promise<void> {
  // The first call waits until the agent is found.
  const { text, instance } = await say({ text: "hello" }, 10_000);
  tell("unary", { text, instance });
}

async function stream(): Promise<void> {
  const request = { text: "again", count: 3, pause: undefined, failWith: 0 };
  const numbers: number[] = [];
  for await (const answer of echo.repeat(request, new Metadata(), { deadline: Date.now() + 5_000 })) {
    numbers.push(answer.number);
  }
  tell("stream", { numbers });
}

async function deadline(): Promise<void> {
  const began = performance.now();
  const failed = await say({ delay: { seconds: 5n } }, 200).then(() => null, (error: ServiceError) => error);
  tell("deadline", { code: failed && codes[failed.code], ms: Math.round(performance.now() - began) });
}

/** Reads what an error says beyond its code: the reason for programs, and which field is wrong. */
async function errorDetails(): Promise<void> {
  const failed = await say({ failWith: 99 }).then(() => null, (error: ServiceError) => error);
  const found: Record<string, string | null> = { code: failed && codes[failed.code] };
  const [raw] = failed?.metadata.get("grpc-status-details-bin") ?? [];
  for (const { typeUrl, value } of Status.decode(raw as Buffer).details) {
    if (typeUrl.endsWith("/google.rpc.ErrorInfo")) {
      const { reason, domain } = ErrorInfo.decode(value);
      Object.assign(found, { reason, domain });
    } else if (typeUrl.endsWith("/google.rpc.BadRequest")) {
      for (const { field, description } of BadRequest.decode(value).fieldViolations) Object.assign(found, { field, description });
    }
  }
  tell("error", found);
}

/** Sends a W3C trace context, as instrumentation of OpenTelemetry would: the agent's span joins the trace. */
async function trace(): Promise<void> {
  const traceId = randomBytes(16).toString("hex");
  const metadata = new Metadata();
  metadata.set("traceparent", `00-${traceId}-${randomBytes(8).toString("hex")}-01`);
  await say({}, 5_000, metadata);
  tell("trace", { trace_id: traceId });
}

/** Goes on calling. Say is declared idempotent, so the channel itself tries it again when a replica dies. */
async function calls(span: number): Promise<void> {
  const end = performance.now() + span;
  const failed: string[] = [];
  const instances: Record<string, number> = {};
  let made = 0;
  const caller = async () => {
    while (performance.now() < end) {
      made++;
      try {
        const { instance } = await say({ text: "x", delay: { nanos: 10_000_000 } });
        instances[instance] = (instances[instance] ?? 0) + 1;
        if (instances[instance] === 1) tell("met", { instance });
      } catch (error) {
        failed.push(`${error}`);
      }
    }
  };
  await Promise.all([caller(), caller(), caller(), caller()]);
  tell("calls", { made, failed, instances });
}

async function main(): Promise<void> {
  for (const show of [unary, stream, deadline, errorDetails, trace]) await show();
  await calls(Number(values.for) * 1_000);
}

main()
  .catch((failed) => {
    console.error(`${failed}`);
    process.exitCode = 1;
  })
  .finally(() => echo.close());
