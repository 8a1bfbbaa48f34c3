// What the mesh is told of an agent's contract, and a message as a call of the skill it is for.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createFileRegistry, fromBinary, getOption } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Metadata, ServiceDefinition, ServiceError, status as codes, UntypedServiceImplementation } from "@grpc/grpc-js";
import { Duration } from "../gen/google/protobuf/duration";
import { BadRequest, ErrorInfo } from "../gen/google/rpc/error_details";
import { Status } from "../gen/google/rpc/status";
import { BrokerServiceClient } from "../gen/weft/v1/broker";
import { Identity } from "../gen/weft/v1/identity";
import { Message, MessageDelivery } from "../gen/weft/v1/message";
import { Delivery, SkillOptions } from "../gen/weft/v1/options";

export const MOST_BYTES = 16 * 1024 * 1024; // of a request or answer, as everywhere in the mesh
export const CHANNEL = {
  "grpc.max_receive_message_length": MOST_BYTES,
  "grpc.keepalive_time_ms": 10_000, // a peer that hangs is noticed by pings
  "grpc.keepalive_timeout_ms": 2_000,
};
// Said again for the same message however often it is tried.
export const PERMANENT = new Set([
  ...[codes.INVALID_ARGUMENT, codes.NOT_FOUND, codes.ALREADY_EXISTS, codes.PERMISSION_DENIED, codes.UNAUTHENTICATED],
  ...[codes.FAILED_PRECONDITION, codes.OUT_OF_RANGE, codes.UNIMPLEMENTED, codes.DATA_LOSS],
]);
export const TOO_MANY = "CONCURRENCY_LIMIT";
export const PAUSED = "AGENT_PAUSED";
export const REFUSALS = new Set([TOO_MANY, PAUSED]); // said of a call that was not begun
const DEFAULT_TIMEOUT = 30_000; // milliseconds; what SkillOptions.default_timeout says of itself
const PUBLISHED_WITHIN = 10_000;

/** A service, and what serves it. */
export interface Served {
  definition: ServiceDefinition;
  implementation: UntypedServiceImplementation;
}

/** The descriptors of what an agent serves: the gateway makes every door of them. */
export class Contract {
  readonly sets: Record<string, Buffer>;
  readonly digest: string;
  readonly services: string[];
  /** Methods that take messages, by path: how long one may take, in milliseconds. */
  readonly skills = new Map<string, number>();

  /** `file` is a FileDescriptorSet, as `buf build --as-file-descriptor-set` or `protoc -o` make it. */
  constructor(file: string, served: Served[]) {
    const set = readFileSync(file);
    this.digest = createHash("sha256").update(set).digest("hex");
    this.sets = { [this.digest]: set };
    const paths = served.flatMap(({ definition }) => Object.values(definition).map(({ path }) => path));
    this.services = [...new Set(paths.map((path) => path.split("/")[1]))];
    const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, set));
    const skill = registry.getExtension("weft.v1.skill");
    for (const name of this.services) {
      for (const method of registry.getService(name)?.methods ?? []) {
        const { delivery, defaultTimeout } = skill ? (getOption(method, skill) as Partial<SkillOptions>) : {};
        if (delivery === Delivery.DELIVERY_MESSAGE || delivery === Delivery.DELIVERY_BOTH) {
          this.skills.set(`/${name}/${method.name}`, milliseconds(defaultTimeout, DEFAULT_TIMEOUT));
        }
      }
    }
  }
}

export const milliseconds = (span: Duration | undefined, otherwise: number) =>
  span ? Number(span.seconds) * 1_000 + span.nanos / 1e6 : otherwise;

/** What a skill learns of the message that its call is, in the words of Weft's own agents. */
export function told({ message, attempt }: MessageDelivery): Metadata {
  const found = new Metadata();
  const { recipient, id, sender, traceparent, conversation, attributes, identity } = message!;
  found.set("weft-message-queue", recipient);
  found.set("weft-message-id", encodeURIComponent(id));
  found.set("weft-message-sender", encodeURIComponent(sender));
  found.set("weft-attempt", `${attempt}`);
  const others = { traceparent, "weft-conversation": conversation, "weft-run": attributes["weft-run"] };
  for (const [key, value] of Object.entries(others)) if (value) found.set(key, value);
  if (identity) found.set("weft-identity-bin", Buffer.from(Identity.encode(identity).finish()));
  return found;
}

/** The answer to a message that says where it wants one. It is the same message for every attempt. */
export function replyTo(message: Message, agent: string, payload: Buffer): Message {
  const asked = createHash("sha256").update([agent, message.sender, message.id].join("\0")).digest("hex");
  const { replyTo: recipient, id: correlationId, method, traceparent, conversation, key } = message;
  const id = `reply-${asked.slice(0, 32)}`;
  return Message.fromPartial({
    id, sender: agent, recipient, correlationId, method, traceparent, conversation, key, payload,
  });
}

export const publish = (client: BrokerServiceClient, message: Message): Promise<void> =>
  new Promise((done, failed) => {
    const options = { deadline: Date.now() + PUBLISHED_WITHIN };
    client.publish({ message }, new Metadata(), options, (error) => (error ? failed(error) : done()));
  });

/** The word for an error, and all that is said about it. */
export function details(failed: ServiceError): { reason: string; status: Status } {
  const [raw] = failed.metadata?.get("grpc-status-details-bin") ?? [];
  const status = raw ? Status.decode(raw as Buffer) : Status.fromPartial({ code: failed.code, message: failed.details });
  const info = status.details.find(({ typeUrl }) => typeUrl.endsWith("/google.rpc.ErrorInfo"));
  const reason = info ? ErrorInfo.decode(info.value).reason : codes[failed.code];
  return { reason: reason.slice(0, 64), status };
}

/**
 * An error that says more than its code: a reason for programs, and which field is wrong if one is. Callers in any
 * language, and every door of the gateway, can read it.
 */
export function failure(code: codes, reason: string, message: string, field?: string): ServiceError {
  const pack = (name: string, value: Uint8Array) => ({ typeUrl: `type.googleapis.com/google.rpc.${name}`, value: Buffer.from(value) });
  const info = ErrorInfo.fromPartial({ reason, domain: "weft.dev" });
  const packed = [pack("ErrorInfo", ErrorInfo.encode(info).finish())];
  if (field) {
    const bad = BadRequest.fromPartial({ fieldViolations: [{ field, description: message }] });
    packed.push(pack("BadRequest", BadRequest.encode(bad).finish()));
  }
  const metadata = new Metadata();
  const status = Status.fromPartial({ code, message, details: packed });
  metadata.set("grpc-status-details-bin", Buffer.from(Status.encode(status).finish()));
  return Object.assign(new Error(message), { code, details: message, metadata });
}
