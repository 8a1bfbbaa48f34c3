package weft

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"strconv"
	"time"

	rpccode "google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	pb "example.com/weft/clients/gen/weft/v1"
)

const defaultTimeout = 30 * time.Second // what SkillOptions.default_timeout says of itself

// contract is what the gateway makes every door of: the descriptors of what a server serves, and their digest.
func contract(server *grpc.Server) ([]byte, string, error) {
	set, seen := &descriptorpb.FileDescriptorSet{}, map[string]bool{}
	var add func(file protoreflect.FileDescriptor)
	add = func(file protoreflect.FileDescriptor) {
		if seen[file.Path()] {
			return
		}
		seen[file.Path()] = true
		for i := range file.Imports().Len() {
			add(file.Imports().Get(i).FileDescriptor)
		}
		set.File = append(set.File, protodesc.ToFileDescriptorProto(file))
	}
	for _, service := range services(server) {
		add(service.ParentFile())
	}
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(set)
	digest := sha256.Sum256(encoded)
	return encoded, hex.EncodeToString(digest[:]), err
}

func services(server *grpc.Server) []protoreflect.ServiceDescriptor {
	var found []protoreflect.ServiceDescriptor
	for name := range server.GetServiceInfo() {
		if known, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name)); err == nil {
			found = append(found, known.(protoreflect.ServiceDescriptor))
		}
	}
	return found
}

// skills are the methods that take messages, by path.
func skills(server *grpc.Server) map[string]protoreflect.MethodDescriptor {
	found := map[string]protoreflect.MethodDescriptor{}
	for _, service := range services(server) {
		for i := range service.Methods().Len() {
			method := service.Methods().Get(i)
			switch options(method).GetDelivery() {
			case pb.Delivery_DELIVERY_MESSAGE, pb.Delivery_DELIVERY_BOTH:
				found[fmt.Sprintf("/%s/%s", service.FullName(), method.Name())] = method
			}
		}
	}
	return found
}

func options(method protoreflect.MethodDescriptor) *pb.SkillOptions {
	return proto.GetExtension(method.Options(), pb.E_Skill).(*pb.SkillOptions)
}

// call handles a message like a call: over the agent's own port, so that all that holds for calls holds for it.
func (a *Agent) call(ctx context.Context, delivery *pb.MessageDelivery) ([]byte, error) {
	message := delivery.Message
	skill, known := a.skills[message.Method]
	if !known {
		return nil, Failure(codes.Unimplemented, "METHOD_UNKNOWN", fmt.Sprintf("%q takes no messages here", message.Method))
	}
	request, response := dynamicpb.NewMessage(skill.Input()), dynamicpb.NewMessage(skill.Output())
	if err := proto.Unmarshal(message.Payload, request); err != nil {
		why := fmt.Sprintf("is no %s", skill.Input().FullName())
		return nil, Failure(codes.InvalidArgument, "INVALID_ARGUMENT", why, "payload")
	}
	most := defaultTimeout
	if said := options(skill).GetDefaultTimeout(); said != nil {
		most = said.AsDuration()
	}
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	if err := a.own.Invoke(metadata.NewOutgoingContext(ctx, told(delivery)), message.Method, request, response); err != nil {
		return nil, err
	}
	return proto.Marshal(response)
}

// told is what a skill learns of the message that its call is, in the words of Weft's own agents.
func told(delivery *pb.MessageDelivery) metadata.MD {
	message := delivery.Message
	found := metadata.Pairs(
		"weft-message-queue", message.Recipient, "weft-message-id", url.PathEscape(message.Id),
		"weft-message-sender", url.PathEscape(message.Sender), "weft-attempt", strconv.Itoa(int(delivery.Attempt)))
	for key, value := range map[string]string{
		"traceparent": message.Traceparent, "weft-conversation": message.Conversation,
		"weft-run": message.Attributes["weft-run"],
	} {
		if value != "" {
			found.Set(key, value)
		}
	}
	if message.Identity != nil {
		identity, _ := proto.Marshal(message.Identity)
		found.Set("weft-identity-bin", string(identity))
	}
	return found
}

// reply is the answer to a message that says where it wants one. It is the same message for every attempt.
func (a *Agent) reply(message *pb.Message, answer []byte) *pb.Message {
	asked := sha256.Sum256([]byte(a.Name + "\x00" + message.Sender + "\x00" + message.Id))
	return &pb.Message{
		Id: "reply-" + hex.EncodeToString(asked[:16]), Sender: a.Name, Recipient: message.ReplyTo,
		CorrelationId: message.Id, Method: message.Method, Traceparent: message.Traceparent,
		Conversation: message.Conversation, Key: message.Key, Payload: answer,
	}
}

// Failure is an error that says more than its code: a reason for programs, and which field is wrong if one is. Callers in
// any language, and every door of the gateway, can read it.
func Failure(code codes.Code, reason, message string, fields ...string) error {
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: reason, Domain: "weft.dev"}}
	for _, field := range fields {
		details = append(details, &errdetails.BadRequest{
			FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: field, Description: message}}})
	}
	failed, err := status.New(code, message).WithDetails(details...)
	if err != nil {
		return err
	}
	return failed.Err()
}

// CodeName is the canonical name of a code, as every other language has it.
func CodeName(code codes.Code) string {
	return rpccode.Code(code).String()
}

// reason is the word for an error: that of its google.rpc.ErrorInfo, or its code.
func reason(failed *status.Status) string {
	for _, detail := range failed.Details() {
		if info, is := detail.(*errdetails.ErrorInfo); is && info.Reason != "" {
			return info.Reason[:min(len(info.Reason), 64)]
		}
	}
	return CodeName(failed.Code())
}
