// Package voxplain asks a voxplain server why a deep network answered what it answered on multi-modal medical volumes: which voxels
// of which modality made it say so.
//
//	client, err := voxplain.New("127.0.0.1:50051")
//	...
//	defer client.Close()
//	explanation, err := client.Explain(ctx, voxplain.Request{Spec: spec, Volumes: volumes})
//	...
//	defer explanation.Close()
//	for {
//		event, err := explanation.Recv()
//		if err == io.EOF {
//			break
//		}
//		...
//		switch event := event.(type) {
//		case *pb.Prediction:
//		case *voxplain.Map:
//		}
//	}
//
// The messages are those of package voxplain.dev/voxplain/v1, made from the contract. The context of Explain carries its deadline
// and cancels it.
package voxplain
