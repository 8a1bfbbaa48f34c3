// Runs the cases in Node.js: node.js URL prints {transport: {case: result}}.

import { compressionGzip, createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { run } from "./cases.js";

const baseUrl = process.argv[2];
const results = {};
for (const useBinaryFormat of [true, false]) {
  const form = useBinaryFormat ? "binary" : "JSON";
  const common = { baseUrl, httpVersion: "1.1", useBinaryFormat };
  const packed = { ...common, sendCompression: compressionGzip, compressMinBytes: 100 };
  results[`Connect, ${form}`] = await run(createConnectTransport(common));
  results[`Connect, ${form}, GET`] = await run(createConnectTransport({ ...common, useHttpGet: true }));
  results[`Connect, ${form}, gzip`] = await run(createConnectTransport(packed));
  results[`gRPC-Web, ${form}`] = await run(createGrpcWebTransport(common));
  results[`gRPC-Web, ${form}, gzip`] = await run(createGrpcWebTransport(packed));
}
console.log(JSON.stringify(results));
