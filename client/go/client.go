package voxplain

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "voxplain.dev/voxplain/v1"
)

const (
	// With the 64 KiB of the standard a map would stop at every 64 KiB for an answer.
	windowBytes = 4 << 20
	bufferBytes = 1 << 20
)

// Client explains cases on one server, over one connection. It may be shared by goroutines.
type Client struct {
	connection *grpc.ClientConn
	explain    pb.ExplainServiceClient
	catalog    pb.CatalogServiceClient
	policy     RetryPolicy
}

// Request is what is asked.
type Request struct {
	// Spec without tensors; what is not set in it takes the server's default.
	Spec *pb.ExplainSpec
	// Volumes: one for every modality of the model; labels, baselines, a mask and background cases where methods read them.
	Volumes []Volume
	// Chunks cuts the bytes. Default: InOrder.
	Chunks Chunker
}

type settings struct {
	tls    *tls.Config
	token  string
	policy RetryPolicy
}

// Option changes how a server is reached.
type Option func(*settings)

// WithTLS encrypts; a configuration with a certificate of the client makes it mTLS.
func WithTLS(config *tls.Config) Option { return func(s *settings) { s.tls = config } }

// WithToken sends a bearer token with every call. New refuses it for another host without TLS.
func WithToken(token string) Option { return func(s *settings) { s.token = token } }

// WithRetry replaces DefaultRetryPolicy.
func WithRetry(policy RetryPolicy) Option { return func(s *settings) { s.policy = policy } }

// New makes a client of the server at HOST:PORT. It connects when it is used.
func New(server string, options ...Option) (*Client, error) {
	chosen := settings{policy: DefaultRetryPolicy()}
	for _, option := range options {
		option(&chosen)
	}
	dial := []grpc.DialOption{
		// Without keepalive a peer that vanished is found after two hours.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithInitialWindowSize(windowBytes),
		grpc.WithInitialConnWindowSize(4 * windowBytes),
		grpc.WithWriteBufferSize(bufferBytes),
		grpc.WithReadBufferSize(bufferBytes),
	}
	if chosen.tls != nil {
		dial = append(dial, grpc.WithTransportCredentials(credentials.NewTLS(chosen.tls)))
	} else {
		dial = append(dial, grpc.WithInsecure())
	}
	if chosen.token != "" {
		if err := checkToken(server, chosen.tls != nil); err != nil {
			return nil, err
		}
		dial = append(dial, grpc.WithPerRPCCredentials(bearer{chosen.token, chosen.tls != nil}))
	}
	connection, err := grpc.Dial(server, dial...)
	if err != nil {
		return nil, err
	}
	return &Client{
		connection: connection,
		explain:    pb.NewExplainServiceClient(connection),
		catalog:    pb.NewCatalogServiceClient(connection),
		policy:     chosen.policy,
	}, nil
}

// Close ends the connection; running explanations are cancelled.
func (c *Client) Close() error { return c.connection.Close() }

// Explain starts an explanation. The context carries its deadline, over all its calls, and cancels it.
func (c *Client) Explain(ctx context.Context, request Request) (*Explanation, error) {
	spec, payloads, err := build(request)
	if err != nil {
		return nil, err
	}
	chunks := request.Chunks
	if chunks == nil {
		chunks = InOrder
	}
	ctx, cancel := context.WithCancel(ctx)
	talk := newConversation(spec, c.policy)
	return &Explanation{ctx: ctx, cancel: cancel, stub: c.explain, payloads: payloads, chunks: chunks, conversation: talk}, nil
}

// Estimate tells what an explanation would cost. It refuses what Explain would refuse on the spec, and sends no voxels.
func (c *Client) Estimate(ctx context.Context, request Request) (*pb.EstimateExplanationResponse, error) {
	spec, _, err := build(request)
	if err != nil {
		return nil, err
	}
	answer, err := c.catalog.EstimateExplanation(ctx, &pb.EstimateExplanationRequest{Spec: spec})
	if err != nil {
		return nil, translate(ctx, err)
	}
	return answer, nil
}

// Models lists the models of the server.
func (c *Client) Models(ctx context.Context) ([]*pb.ModelSummary, error) {
	var found []*pb.ModelSummary
	for token := ""; ; {
		page, err := c.catalog.ListModels(ctx, &pb.ListModelsRequest{PageToken: token})
		if err != nil {
			return nil, translate(ctx, err)
		}
		found = append(found, page.Models...)
		if token = page.NextPageToken; token == "" {
			return found, nil
		}
	}
}

// Describe tells of one model: modalities, classes, and for each method whether it works on it. An empty version: the highest.
func (c *Client) Describe(ctx context.Context, name, version string) (*pb.Model, error) {
	answer, err := c.catalog.GetModel(ctx, &pb.GetModelRequest{Name: name, Version: version})
	if err != nil {
		return nil, translate(ctx, err)
	}
	return answer.Model, nil
}

// Methods lists the methods with citation, defaults and assumptions.
func (c *Client) Methods(ctx context.Context) ([]*pb.MethodDescription, error) {
	answer, err := c.catalog.ListMethods(ctx, &pb.ListMethodsRequest{})
	if err != nil {
		return nil, translate(ctx, err)
	}
	return answer.Methods, nil
}

// Method makes a method with every parameter at its default, by its name with hyphens, for example "integrated-gradients".
func Method(name string) (*pb.Method, error) {
	method := (&pb.Method{}).ProtoReflect()
	choice := method.Descriptor().Oneofs().ByName("method").Fields().ByName(protoreflect.Name(strings.ReplaceAll(name, "-", "_")))
	if choice == nil {
		return nil, refusal("METHOD_UNKNOWN", "no such method; see Methods", "methods")
	}
	method.Set(choice, method.NewField(choice))
	return method.Interface().(*pb.Method), nil
}

func build(request Request) (*pb.ExplainSpec, []Payload, error) {
	payloads, err := makePayloads(request.Volumes)
	if err != nil {
		return nil, nil, err
	}
	spec := proto.Clone(request.Spec).(*pb.ExplainSpec)
	for _, payload := range payloads {
		spec.Tensors = append(spec.Tensors, payload.Header)
	}
	if spec.RequestId == "" {
		var id [16]byte
		if _, err := rand.Read(id[:]); err != nil {
			return nil, nil, err
		}
		spec.RequestId = hex.EncodeToString(id[:])
	}
	return spec, payloads, nil
}

type bearer struct {
	token  string
	secure bool
}

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + b.token}, nil
}

func (b bearer) RequireTransportSecurity() bool { return b.secure }
