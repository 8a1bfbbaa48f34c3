// Runs the cases in Node.js: node.js URL prints {transport: {case: result}}.

import { compressionGzip, createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { run } from "./cases.js";

const baseUrl = process.argv[2];
const transports = {};
for (const useBinaryFormat of [true, false]) {
  const form = useBinaryFormat ? "binary" : "JSON";
  const common = { baseUrl, httpVersion: "1.1", useBinaryFormat };
  const packed = { ...common, sendCompression: compressionGzip, compressMinBytes: 100 };
  transports[`Connect, ${form}`] = createConnectTransport(common);
  transports[`Connect, ${form}, GET`] = createConnectTransport({ ...common, useHttpGet: true });
  transports[`Connect, ${form}, gzip`] = createConnectTransport(packed);
  transports[`gRPC-Web, ${form}`] = createGrpcWebTransport(common);
  transports[`gRPC-Web, ${form}, gzip`] = createGrpcWebTransport(packed);
}
const results = Object.fromEntries(
  await Promise.all(
    Object.entries(transports).map(async ([name, transport]) => [name, await run(transport)]),
  ),
);
// Connections that are kept for a next call would keep the process.
process.stdout.write(JSON.stringify(results), () => process.exit(0));
