package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// nasMount is a datastore that a host has mounted by NFS from a server that runs.
type nasMount struct {
	url    string // nfs://server/path
	folder string // what stands for it here: the descriptors, and a hole for each disk
}

// A host of ours has no kernel to mount with: libnfs' tools, which are clients like any other, read for it.
var (
	nasPort   int // where the servers are, since there is no portmapper; 0: where NFS is
	nasMounts = map[string]nasMount{}
	nasRoot   string
)

func (m nasMount) file(name string) string {
	if nasPort == 0 {
		return m.url + "/" + name
	}
	return fmt.Sprintf("%s/%s?nfsport=%d&mountport=%[3]d", m.url, name, nasPort)
}

// mountNas does what CreateNasDatastore asks for: lists the server's folder and takes the descriptors over.
func mountNas(request *types.CreateNasDatastore) (*ref, types.BaseMethodFault) {
	system := simulator.Map.Get(request.This).(*simulator.HostDatastoreSystem)
	name, server := request.Spec.LocalPath, request.Spec.RemoteHost
	for _, entity := range simulator.Map.All("Datastore") {
		if entity.(*simulator.Datastore).Name == name {
			return nil, &types.DuplicateName{Name: name, Object: entity.Reference()}
		}
	}
	mount := nasMount{"nfs://" + server + request.Spec.RemotePath, filepath.Join(nasRoot, "nas", name)}
	listed, err := exec.Command("nfs-ls", mount.file("")).Output()
	if err != nil {
		return nil, &types.PlatformConfigFault{Text: "unable to mount: " + err.Error()}
	}
	must(os.MkdirAll(mount.folder, 0o755))
	for _, line := range strings.Split(string(listed), "\n") {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		file := fields[len(fields)-1]
		if strings.HasSuffix(file, "-flat.vmdk") {
			must(os.WriteFile(filepath.Join(mount.folder, file), nil, 0o644))
		} else if strings.HasSuffix(file, ".vmdk") {
			must(exec.Command("nfs-cp", mount.file(file), filepath.Join(mount.folder, file)).Run())
		}
	}
	made := &simulator.Datastore{}
	made.Self = ref{Type: "Datastore", Value: "datastore-nas-" + name}
	made.Name = name
	info := types.DatastoreInfo{Name: name, Url: mount.folder}
	nas := &types.HostNasVolume{RemoteHost: server, RemotePath: request.Spec.RemotePath}
	made.Info = &types.NasDatastoreInfo{DatastoreInfo: info, Nas: nas}
	made.Summary = types.DatastoreSummary{
		Datastore: &made.Self, Name: name, Url: mount.folder, Type: "NFS", Accessible: true, Capacity: 1 << 40, FreeSpace: 1 << 39,
	}
	host := system.Host.Reference()
	made.Host = []types.DatastoreHostMount{{Key: host, MountInfo: types.HostMountInfo{
		Path: mount.folder, AccessMode: "readWrite", Mounted: types.NewBool(true), Accessible: types.NewBool(true),
	}}}
	sibling := simulator.Map.Get(system.Host.Datastore[0]).(*simulator.Datastore)
	made.Parent = sibling.Parent
	simulator.Map.Put(made)
	folder := simulator.Map.Get(*sibling.Parent).(*simulator.Folder)
	folder.ChildEntity = append(folder.ChildEntity, made.Self)
	for _, holder := range datacentersWith(sibling.Self) {
		holder.Datastore = append(holder.Datastore, made.Self)
	}
	system.Host.Datastore = append(system.Host.Datastore, made.Self)
	system.Datastore = system.Host.Datastore
	nasMounts[name] = mount
	return &made.Self, nil
}

func datacentersWith(datastore ref) []*simulator.Datacenter {
	var found []*simulator.Datacenter
	for _, entity := range simulator.Map.All("Datacenter") {
		center := entity.(*simulator.Datacenter)
		for _, one := range center.Datastore {
			if one == datastore {
				found = append(found, center)
			}
		}
	}
	return found
}

// unmountNas does what RemoveDatastore asks for, unless a VM has a disk there.
func unmountNas(request *types.RemoveDatastore) types.BaseMethodFault {
	datastore, ok := simulator.Map.Get(request.Datastore).(*simulator.Datastore)
	if !ok {
		return &types.ManagedObjectNotFound{Obj: request.Datastore}
	}
	for _, disk := range guestDisks() {
		if strings.HasPrefix(disk.Path, "["+datastore.Name+"]") {
			return &types.ResourceInUse{Type: "Datastore", Name: datastore.Name}
		}
	}
	system := simulator.Map.Get(request.This).(*simulator.HostDatastoreSystem)
	system.Host.Datastore = without(system.Host.Datastore, datastore.Self)
	system.Datastore = system.Host.Datastore
	for _, center := range datacentersWith(datastore.Self) {
		center.Datastore = without(center.Datastore, datastore.Self)
	}
	folder := simulator.Map.Get(*datastore.Parent).(*simulator.Folder)
	folder.ChildEntity = without(folder.ChildEntity, datastore.Self)
	must(os.RemoveAll(nasMounts[datastore.Name].folder))
	delete(nasMounts, datastore.Name)
	simulator.Map.Remove(datastore.Self)
	return nil
}

func without(refs []ref, one ref) []ref {
	var left []ref
	for _, other := range refs {
		if other != one {
			left = append(left, other)
		}
	}
	return left
}

// moveDisks takes single disks of a VM to other datastores, beside its configuration; what is mounted is read by NFS.
func moveDisks(vm *simulator.VirtualMachine, locators []types.VirtualMachineRelocateSpecDiskLocator) {
	var home object.DatastorePath
	home.FromString(vm.Config.Files.VmPathName)
	for _, locator := range locators {
		to := simulator.Map.Get(locator.Datastore).(*simulator.Datastore)
		for _, device := range vm.Config.Hardware.Device {
			disk, ok := device.(*types.VirtualDisk)
			if !ok || disk.Key != locator.DiskId {
				continue
			}
			backing := disk.Backing.(*flatBacking)
			var from object.DatastorePath
			from.FromString(backing.FileName)
			path := object.DatastorePath{Datastore: to.Name, Path: filepath.Join(filepath.Dir(home.Path), filepath.Base(from.Path))}
			target := filepath.Join(to.Info.GetDatastoreInfo().Url, path.Path)
			must(os.MkdirAll(filepath.Dir(target), 0o755))
			source := filepath.Join(folderOf(vm, from.Datastore), from.Path)
			if mount, mounted := nasMounts[from.Datastore]; mounted {
				must(exec.Command("nfs-cp", mount.file(flatOf(from.Path)), flatOf(target)).Run())
			} else {
				must(os.Rename(flatOf(source), flatOf(target)))
			}
			must(os.Rename(source, target))
			backing.FileName, backing.Datastore = path.String(), &to.Self
			vm.Datastore = append(without(vm.Datastore, to.Self), to.Self)
		}
	}
	for name := range nasMounts {
		used := false
		for _, backing := range covered(vm.Config.Hardware.Device) {
			used = used || strings.HasPrefix(backing.FileName, "["+name+"]")
		}
		if !used {
			vm.Datastore = without(vm.Datastore, ref{Type: "Datastore", Value: "datastore-nas-" + name})
		}
	}
}

// answerNas answers what concerns mounts; false: somebody else does.
func answerNas(w http.ResponseWriter, method *simulator.Method) bool {
	switch request := method.Body.(type) {
	case *types.CreateNasDatastore:
		made, fault := mountNas(request)
		if fault != nil {
			writeFault(w, fault)
			return true
		}
		writeResponse(w, &types.CreateNasDatastoreResponse{Returnval: *made})
	case *types.RemoveDatastore:
		if fault := unmountNas(request); fault != nil {
			writeFault(w, fault)
			return true
		}
		writeResponse(w, &types.RemoveDatastoreResponse{})
	default:
		return false
	}
	return true
}
