package main

import (
	"context"
	"log"
	"os"
	"path/filepath"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

const provisioner = "modelyard.test/hostpath"

// agent does what a real node's add-ons would: it gives claims of the default class a directory of the
// node, deletes released ones, and keeps the pretended GPUs in the node's status.
type agent struct {
	client    kubernetes.Interface
	directory string
	gpus      string
}

func runAgent(ctx context.Context) error {
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 200, 400
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	a := &agent{client: client, directory: os.Getenv("VOLUMES_DIR"), gpus: os.Getenv("GPUS")}
	factory := informers.NewSharedInformerFactory(client, 10*time.Second)
	watch := func(informer cache.SharedIndexInformer, look func(object any) error) {
		seen := func(object any) {
			if err := look(object); err != nil {
				log.Print(err) // the next resync tries again
			}
		}
		informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: seen, UpdateFunc: func(_, object any) { seen(object) },
		})
	}
	watch(factory.Core().V1().PersistentVolumeClaims().Informer(), func(object any) error {
		return a.provision(ctx, object.(*v1.PersistentVolumeClaim))
	})
	watch(factory.Core().V1().PersistentVolumes().Informer(), func(object any) error {
		return a.reclaim(ctx, object.(*v1.PersistentVolume))
	})
	watch(factory.Core().V1().Nodes().Informer(), func(object any) error {
		return a.addGPUs(ctx, object.(*v1.Node))
	})
	factory.Start(ctx.Done())
	wait.UntilWithContext(ctx, func(context.Context) {}, time.Minute)
	return nil
}

func (a *agent) provision(ctx context.Context, claim *v1.PersistentVolumeClaim) error {
	// The volume controller names here the provisioner that is to act, once binding may begin.
	if claim.Annotations["volume.kubernetes.io/storage-provisioner"] != provisioner ||
		claim.Spec.VolumeName != "" || claim.DeletionTimestamp != nil {
		return nil
	}
	name := "pvc-" + string(claim.UID)
	path := filepath.Join(a.directory, name)
	if err := os.MkdirAll(path, 0o777); err != nil {
		return err
	}
	if err := os.Chmod(path, 0o777); err != nil { // MkdirAll's mode goes through the umask
		return err
	}
	_, err := a.client.CoreV1().PersistentVolumes().Create(ctx, &v1.PersistentVolume{
		ObjectMeta: meta.ObjectMeta{
			Name: name, Annotations: map[string]string{"pv.kubernetes.io/provisioned-by": provisioner}},
		Spec: v1.PersistentVolumeSpec{
			Capacity: claim.Spec.Resources.Requests, AccessModes: claim.Spec.AccessModes,
			StorageClassName:              *claim.Spec.StorageClassName,
			VolumeMode:                    claim.Spec.VolumeMode,
			PersistentVolumeReclaimPolicy: v1.PersistentVolumeReclaimDelete,
			PersistentVolumeSource:        v1.PersistentVolumeSource{HostPath: &v1.HostPathVolumeSource{Path: path}},
			ClaimRef: &v1.ObjectReference{Kind: "PersistentVolumeClaim", APIVersion: "v1",
				Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID},
		}}, meta.CreateOptions{})
	if errors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func (a *agent) reclaim(ctx context.Context, volume *v1.PersistentVolume) error {
	if volume.Annotations["pv.kubernetes.io/provisioned-by"] != provisioner ||
		volume.Status.Phase != v1.VolumeReleased || volume.Spec.HostPath == nil {
		return nil
	}
	// The path is built from the volume's name, never read from the object: nothing else can be deleted.
	if err := os.RemoveAll(filepath.Join(a.directory, filepath.Base(volume.Name))); err != nil {
		return err
	}
	err := a.client.CoreV1().PersistentVolumes().Delete(ctx, volume.Name, meta.DeleteOptions{})
	if errors.IsNotFound(err) {
		return nil
	}
	return err
}

// addGPUs puts the pretended GPUs back whenever the kubelet has registered its node anew.
func (a *agent) addGPUs(ctx context.Context, node *v1.Node) error {
	quantity, ok := node.Status.Capacity["nvidia.com/gpu"]
	if a.gpus == "" || ok && quantity.String() == a.gpus {
		return nil
	}
	patch := []byte(`{"status":{"capacity":{"nvidia.com/gpu":"` + a.gpus + `"},"allocatable":{"nvidia.com/gpu":"` + a.gpus + `"}}}`)
	_, err := a.client.CoreV1().Nodes().Patch(
		ctx, node.Name, types.StrategicMergePatchType, patch, meta.PatchOptions{}, "status")
	return err
}
