// Consumes COUNT messages of a queue, acknowledges each and prints what they said, by key.
// node consumer.js ADDRESS QUEUE COUNT
import { credentials } from "@grpc/grpc-js";
import { BrokerServiceClient, ConsumeRequest, ConsumeResponse } from "./gen/weft/v1/broker";
import { SayRequest } from "./gen/weft/echo/v1/echo";

const [address, queue, count] = [process.argv[2], process.argv[3], Number(process.argv[4])];
const client = new BrokerServiceClient(address, credentials.createInsecure());
const stream = client.consume();
const said: Record<string, string[]> = {};
let handled = 0;

stream.on("data", (frame: ConsumeResponse) => {
  for (const delivery of frame.deliveries) {
    const message = delivery.message!;
    (said[message.key] ??= []).push(SayRequest.decode(message.payload).text);
    handled += 1;
  }
  if (frame.deliveries.length > 0) {
    const ack = frame.deliveries.map((delivery) => delivery.leaseId);
    stream.write(ConsumeRequest.fromPartial({ ack, credit: ack.length }));
  }
  // Done is when the broker says that every acknowledgement is safe.
  if (handled === count && Number(frame.settled) === count) {
    stream.write(ConsumeRequest.fromPartial({ leave: true }));
    stream.end();
  }
});
stream.on("error", (failed: Error) => {
  console.error(failed.message);
  process.exit(1);
});
stream.on("end", () => {
  console.log(JSON.stringify(said));
  client.close();
});
stream.write(ConsumeRequest.fromPartial({ open: { queue, consumer: "typescript", declare: true } }));
stream.write(ConsumeRequest.fromPartial({ credit: 10 }));
