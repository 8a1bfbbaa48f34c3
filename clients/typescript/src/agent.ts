// The agent echo in TypeScript: serves weft.echo.v1.EchoService like Weft's own, by calls and durable messages.
import { join } from "node:path";
import { parseArgs } from "node:util";
import { echo } from "./echo";
import { EchoServiceService } from "./gen/weft/echo/v1/echo";
import { Agent } from "./weft/agent";

const { values } = parseArgs({
  options: {
    agent: { type: "string", default: "echo" },
    registry: { type: "string", default: "127.0.0.1:7070" },
    brokers: { type: "string", default: "127.0.0.1:7072" }, // joined by commas; empty: calls only
    concurrency: { type: "string", default: "1000" }, // calls it works on at a time
    listen: { type: "string", default: "127.0.0.1:0" },
    advertise: { type: "string" },
  },
});

const agent = new Agent(
  {
    name: values.agent,
    version: "1.0.0",
    registry: values.registry,
    brokers: values.brokers.split(",").filter(Boolean),
    listen: values.listen,
    maxConcurrency: Number(values.concurrency),
    advertise: values.advertise,
    descriptors: join(__dirname, "../gen/echo.binpb"),
  },
  [{ definition: EchoServiceService, implementation: echo(`typescript-${process.pid}`) }],
);
// The first signal drains, the second ends the process.
for (const name of ["SIGINT", "SIGTERM"] as const) process.once(name, () => agent.drain());
agent.serve().catch((failed) => {
  console.error(`stopped: ${failed}`);
  process.exitCode = 1;
});
