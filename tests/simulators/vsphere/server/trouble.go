package main

import (
	"net/http"
	"net/http/httptest"
	"reflect"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// trouble is everything that is to go wrong, and what has been asked so far.
type trouble struct {
	calls    map[string]int
	perVm    map[string]map[string]int // VM -> what -> how often
	events   []*event
	revoked  map[string]bool // privileges
	sessions map[string]bool // key -> still valid
	held     map[ref]*heldTask
}

// event is one thing that goes wrong: a call that is refused or dropped, or a task that fails or is slow.
type event struct {
	Method  string // * is every one
	Vm      string // only calls of this VM, by managed object id; empty: of whatever
	Mode    string // refuse, drop, fail (not done), fail_after (done, and then reported as failed), slow
	Fault   string // a vSphere fault's type
	Times   int    // how often; 0 is always
	Skip    int    // calls that still succeed before
	Polls   int    // slow: reads of the task before it is done
	Quiesce bool   // only a CreateSnapshot_Task that quiesces
	File    string // what a file's fault names
}

type heldTask struct {
	task         *simulator.Task
	polls, reads int
	run          func() *simulator.Task
}

func newTrouble() *trouble {
	t := &trouble{
		calls: map[string]int{}, perVm: map[string]map[string]int{}, revoked: map[string]bool{}, sessions: map[string]bool{}, held: map[ref]*heldTask{},
	}
	reading = t.advance
	return t
}

// needed is the privilege that each method checks, of those that the tests refuse.
var needed = map[string]string{
	"CreateSnapshot_Task":   "VirtualMachine.State.CreateSnapshot",
	"RemoveSnapshot_Task":   "VirtualMachine.State.RemoveSnapshot",
	"ReconfigVM_Task":       "VirtualMachine.Config.ChangeTracking",
	"QueryChangedDiskAreas": "VirtualMachine.Provisioning.DiskRandomRead",
	"CreateVM_Task":         "VirtualMachine.Inventory.Create",
	"Destroy_Task":          "VirtualMachine.Inventory.Delete",
	"PowerOnVM_Task":        "VirtualMachine.Interact.PowerOn",
	"PowerOffVM_Task":       "VirtualMachine.Interact.PowerOff",
}

var open = map[string]bool{
	"RetrieveServiceContent": true, "Login": true, "Logout": true,
}

// refusal is why this caller may not do this, or nil.
func (t *trouble) refusal(r *http.Request, method *simulator.Method) types.BaseMethodFault {
	key := sessionOf(r)
	valid, known := t.sessions[key]
	if known && !valid { // the simulator still knows it
		r.Header.Del("Cookie")
	}
	if !open[method.Name] && !valid && (known || method.Name != "RetrievePropertiesEx") {
		return &types.NotAuthenticated{NoPermission: types.NoPermission{Object: method.This, PrivilegeId: "System.View"}}
	}
	if privilege := needed[method.Name]; t.revoked[privilege] {
		return &types.NoPermission{Object: method.This, PrivilegeId: privilege}
	}
	return nil
}

func (t *trouble) watchSession(method *simulator.Method, r *http.Request, answer *httptest.ResponseRecorder) {
	switch method.Name {
	case "Login":
		for _, cookie := range answer.Result().Cookies() {
			t.sessions[cookie.Value] = true
		}
	case "Logout":
		delete(t.sessions, sessionOf(r))
	}
}

func (t *trouble) take(method *simulator.Method) *event {
	for i, e := range t.events {
		if e.Method != method.Name && e.Method != "*" {
			continue
		}
		if e.Vm != "" && e.Vm != method.This.Value {
			continue
		}
		if request, ok := method.Body.(*types.CreateSnapshot_Task); ok && e.Quiesce && !request.Quiesce {
			continue
		}
		if e.Skip > 0 {
			e.Skip--
			continue
		}
		if e.Times == 1 {
			t.events = append(t.events[:i:i], t.events[i+1:]...)
		} else if e.Times > 1 {
			e.Times--
		}
		return e
	}
	return nil
}

func (e *event) fault(method *simulator.Method) types.BaseMethodFault {
	kind, known := types.TypeFunc()(e.Fault)
	if !known {
		kind = reflect.TypeOf(types.RuntimeFault{})
	}
	value := reflect.New(kind)
	for name, content := range map[string]interface{}{
		"File": e.File, "PrivilegeId": needed[method.Name], "Object": method.This, "Obj": method.This,
		"Task": ref{Type: "Task", Value: "task-0"}, "Datastore": method.This,
	} {
		if field := value.Elem().FieldByName(name); field.IsValid() && field.Type() == reflect.TypeOf(content) {
			field.Set(reflect.ValueOf(content))
		}
	}
	return value.Interface().(types.BaseMethodFault)
}

func newTask(method *simulator.Method) *simulator.Task {
	entity := method.This
	if snapshot, ok := simulator.Map.Get(entity).(*simulator.VirtualMachineSnapshot); ok {
		entity = snapshot.Vm
	}
	return simulator.CreateTask(entity, method.Name, nil)
}

func failedTask(method *simulator.Method, fault types.BaseMethodFault) *simulator.Task {
	task := newTask(method)
	spoil(task, fault)
	return task
}

func spoil(task *simulator.Task, fault types.BaseMethodFault) {
	task.Info.State, task.Info.Result = types.TaskInfoStateError, nil
	task.Info.Error = &types.LocalizedMethodFault{
		Fault: fault, LocalizedMessage: "simulated: " + reflect.TypeOf(fault).Elem().Name(),
	}
}

// hold makes a task that runs only when it has been read often enough, and that can be cancelled until then.
func (t *trouble) hold(method *simulator.Method, polls int, run func() *simulator.Task) *simulator.Task {
	task := newTask(method)
	task.Info.State, task.Info.Cancelable = types.TaskInfoStateRunning, true
	t.held[task.Self] = &heldTask{task: task, polls: polls, run: run}
	if vm, ok := simulator.Map.Get(method.This).(*simulator.VirtualMachine); ok {
		vm.RecentTask = append(vm.RecentTask, task.Self)
	}
	return task
}

func (t *trouble) advance(task ref) {
	held, ok := t.held[task]
	if !ok {
		return
	}
	held.reads++
	if held.reads < held.polls {
		held.task.Info.Progress = int32(100 * held.reads / held.polls)
		return
	}
	delete(t.held, task)
	if done := held.run(); done != nil {
		held.task.Info.State, held.task.Info.Progress = done.Info.State, 100
		held.task.Info.Result, held.task.Info.Error = done.Info.Result, done.Info.Error
	}
}

func (t *trouble) cancel(task ref) {
	if held, ok := t.held[task]; ok {
		delete(t.held, task)
		spoil(held.task, &types.RequestCanceled{})
	}
}

func (t *trouble) privileges(request *types.HasPrivilegeOnEntities) []types.EntityPrivilege {
	var out []types.EntityPrivilege
	for _, entity := range request.Entity {
		answer := types.EntityPrivilege{Entity: entity}
		for _, id := range request.PrivId {
			answer.PrivAvailability = append(answer.PrivAvailability, types.PrivilegeAvailability{
				PrivId: id, IsGranted: !t.revoked[id],
			})
		}
		out = append(out, answer)
	}
	return out
}
