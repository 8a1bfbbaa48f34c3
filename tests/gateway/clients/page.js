// Runs the cases in a browser: page.html?URL; what they came to is in window.results.

import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";
import { run } from "./cases.js";

const baseUrl = decodeURIComponent(location.search.slice(1));
// No browser sends a stream of requests, so its transports refuse that themselves, each in its own way.
const skip = ["streams of requests are refused with a hint"];
const results = {};
try {
  for (const useBinaryFormat of [true, false]) {
    const form = useBinaryFormat ? "binary" : "JSON";
    const common = { baseUrl, useBinaryFormat };
    results[`Connect, ${form}`] = await run(createConnectTransport(common), skip);
    results[`Connect, ${form}, GET`] = await run(createConnectTransport({ ...common, useHttpGet: true }), skip);
    results[`gRPC-Web, ${form}`] = await run(createGrpcWebTransport(common), skip);
  }
  window.results = results;
} catch (thrown) {
  window.results = { thrown: { page: String(thrown) } };
}
