//go:build linux

package target

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	imageapi "github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
	"github.com/rs/zerolog"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
	"github.com/praxis-sdk/executor/internal/engines/docker"
)

// ContainerImage is the image of attempts in containers: busybox and nothing else. RemoveContainers removes it.
const ContainerImage = "executor-abuse:busybox"

// newContainer makes the Docker engine as the program has it, but for containers made ahead, which would outnumber the attempts.
func newContainer(string) (engines.Engine, error) {
	config := docker.Default()
	config.KillGrace, config.Pull, config.Warm = 200*time.Millisecond, docker.PullNever, docker.Warm{}
	engine, err := docker.New(config, zerolog.Nop())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := errors.Join(engine.Ready(ctx), makeImage(ctx)); err != nil {
		_ = engine.Close() // the first error is the story
		return nil, err
	}
	return engine, nil
}

func containerSpec(common contracts.CommonSpec) contracts.Spec {
	return &contracts.DockerSpec{ContainerSpec: contracts.ContainerSpec{CommonSpec: common, Image: ContainerImage}}
}

// makeImage makes the image if it is not there.
func makeImage(ctx context.Context) error {
	api, err := client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
	if err != nil {
		return err
	}
	defer func() { _ = api.Close() }()
	if _, err := api.ImageInspect(ctx, ContainerImage); err == nil {
		return nil
	}
	file, err := exec.LookPath("busybox")
	if err != nil {
		return fmt.Errorf("busybox (of busybox-static), which is all that the image holds: %w", err)
	}
	program, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	names, err := exec.Command(file, "--list").Output()
	if err != nil {
		return fmt.Errorf("busybox --list: %w", err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err = w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755, Size: int64(len(program))})
	if err == nil {
		_, err = w.Write(program)
	}
	for _, name := range bytes.Fields(names) {
		if err == nil && string(name) != "busybox" {
			err = w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + string(name), Linkname: "busybox"})
		}
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return err
	}
	answer, err := api.ImageImport(ctx, imageapi.ImportSource{Source: &b, SourceName: "-"}, ContainerImage, imageapi.ImportOptions{})
	if err != nil {
		return err
	}
	defer answer.Close()
	_, err = io.Copy(io.Discard, answer)
	return err
}

// RemoveContainers removes what attempts in containers need of the daemon: their image, and the volume of their cache.
func RemoveContainers() {
	if api, err := client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation()); err == nil {
		_, _ = api.ImageRemove(context.Background(), ContainerImage, imageapi.RemoveOptions{Force: true}) // they may not be there
		_ = api.VolumeRemove(context.Background(), "executor-cache-"+cacheName, true)
		_ = api.Close()
	}
}
