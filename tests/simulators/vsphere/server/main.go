// A vCenter (or one ESXi host) to test against: govmomi's simulator with real datastore folders, changed block
// tracking by real difference, and failures on demand. docs/vsphere.md says what it can't show.
//
// It prints one line of JSON when it listens, and ends when its standard input does.
package main

import (
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/vmware/govmomi/simulator"
	_ "github.com/vmware/govmomi/vapi/simulator" // tags, in vCenter's REST interface
	"github.com/vmware/govmomi/vim25/types"
)

type ref = types.ManagedObjectReference

func main() {
	if os.Getenv("SIMULATOR_LOG") == "" {
		log.SetOutput(io.Discard)
	}
	root := flag.String("root", "", "folder that holds the datastores and the frozen disks; must exist")
	esx := flag.Bool("esx", false, "be a single ESXi host")
	machines := flag.Int("vms", 2, "VMs per resource pool: one pool is a host's, one a cluster's")
	datastores := flag.Int("datastores", 2, "datastores, taking turns as VMFS and NFS")
	names := flag.String("datastore-names", "", "what they are called, with commas between; only without VMs")
	user := flag.String("user", "backup@vsphere.local", "who may log in")
	password := flag.String("password", "", "with this password")
	certificate := flag.String("certificate", "", "PEM file; the simulator's own otherwise")
	key := flag.String("key", "", "PEM file with its private key")
	piece := flag.Int64("cbt-piece", 64<<20, "bytes of a disk that one answer about changed areas covers at most")
	kept := flag.Int("kept", 0, "frozen images that stay, per disk, when their snapshots are gone; 0: all")
	flag.Parse()

	nasRoot = *root
	must(os.Setenv("TMPDIR", *root)) // where the simulator makes datastores
	model := simulator.VPX()
	if *esx {
		model = simulator.ESX()
	}
	model.ServiceContent.About.FullName += " (simulated)"
	model.Machine, model.Datastore = *machines, *datastores
	must(model.Create())
	model.Service.TLS = new(tls.Config)
	if *certificate != "" {
		pair, err := tls.LoadX509KeyPair(*certificate, *key)
		must(err)
		model.Service.TLS.Certificates = []tls.Certificate{pair}
	}
	model.Service.Listen = &url.URL{Host: "127.0.0.1:0", User: url.UserPassword(*user, *password)}
	model.Service.RegisterEndpoints = true

	disks := newShelf(*root, *kept)
	folders := describeDatastores(strings.Split(*names, ","))
	disks.linkLive(folders)
	disks.furnishAll()
	pageProperties(model.ServiceContent.PropertyCollector)

	server := model.Service.NewServer()
	front := &frontDoor{
		next: server.Config.Handler, disks: disks, piece: *piece, user: *user, password: *password, trouble: newTrouble(),
	}
	server.Config.Handler = front
	control, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	go func() { _ = http.Serve(control, front.controls()) }()

	must(json.NewEncoder(os.Stdout).Encode(map[string]interface{}{
		"host":       server.URL.Hostname(),
		"port":       server.URL.Port(),
		"control":    "http://" + control.Addr().String(),
		"datastores": folders,
		"frozen":     disks.frozen,
		"removed":    disks.removed,
	}))
	_, _ = io.Copy(io.Discard, os.Stdin)
	model.Remove()
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// describeDatastores mounts every datastore on every host and gives it a name and a type; returns name -> folder.
func describeDatastores(names []string) map[string]string {
	folders := map[string]string{}
	for _, entity := range simulator.Map.All("Datastore") {
		datastore := entity.(*simulator.Datastore)
		number, _ := strconv.Atoi(datastore.Name[strings.LastIndex(datastore.Name, "_")+1:])
		if number < len(names) && names[number] != "" {
			datastore.Name, datastore.Summary.Name = names[number], names[number]
			datastore.Info.GetDatastoreInfo().Name = names[number]
		}
		info := *datastore.Info.GetDatastoreInfo()
		folders[datastore.Name] = info.Url
		datastore.Host = nil
		for _, host := range simulator.Map.All("HostSystem") {
			datastore.Host = append(datastore.Host, types.DatastoreHostMount{
				Key: host.Reference(),
				MountInfo: types.HostMountInfo{
					Path: info.Url, AccessMode: "readWrite", Mounted: types.NewBool(true), Accessible: types.NewBool(true),
				},
			})
		}
		datastore.Summary.Accessible = true
		if number%2 == 1 {
			datastore.Summary.Type = "NFS"
			datastore.Info = &types.NasDatastoreInfo{
				DatastoreInfo: info,
				Nas:           &types.HostNasVolume{RemoteHost: "filer.example", RemotePath: info.Url},
			}
			continue
		}
		datastore.Summary.Type = "VMFS"
		datastore.Info = &types.VmfsDatastoreInfo{DatastoreInfo: info, Vmfs: &types.HostVmfsVolume{
			Uuid: fmt.Sprintf("5f1e0000-%08x", number), Version: "6.82",
			Extent: []types.HostScsiDiskPartition{{DiskName: fmt.Sprintf("naa.600508b1001c%04x", number), Partition: 1}},
		}}
	}
	return folders
}
