// Publishes COUNT typed messages to a queue over one stream and prints how many the broker accepted.
// node producer.js ADDRESS QUEUE COUNT
import { credentials } from "@grpc/grpc-js";
import { BrokerServiceClient, PublishStreamResponse } from "./gen/weft/v1/broker";
import { Message, Priority } from "./gen/weft/v1/message";
import { SayRequest } from "./gen/weft/echo/v1/echo";

const [address, queue, count] = [process.argv[2], process.argv[3], Number(process.argv[4])];
const client = new BrokerServiceClient(address, credentials.createInsecure());
const stream = client.publishStream();
const outcome = { accepted: 0, duplicates: 0, refusals: [] as string[] };

stream.on("data", (answer: PublishStreamResponse) => {
  outcome.accepted += answer.accepted.length;
  outcome.duplicates += answer.duplicates.length;
  outcome.refusals.push(...answer.refusals.map((refusal) => refusal.status?.message ?? ""));
  if (outcome.accepted + outcome.refusals.length === count + 1) {
    stream.end();
  }
});
stream.on("error", (failed: Error) => {
  console.error(failed.message);
  process.exit(1);
});
stream.on("end", () => {
  console.log(JSON.stringify(outcome));
  client.close();
});

const message = (number: number): Message =>
  Message.fromPartial({
    id: `ts-${number}`,
    sender: "typescript",
    recipient: queue,
    method: "/weft.echo.v1.EchoService/Say",
    key: `key-${number % 3}`,
    priority: Priority.PRIORITY_NORMAL,
    payload: Buffer.from(SayRequest.encode(SayRequest.fromPartial({ text: `hello ${number}` })).finish()),
  });
const numbers = [...Array(count).keys()];
// The first one twice: the broker knows it by its id.
stream.write({ messages: [...numbers, 0].map(message) });
