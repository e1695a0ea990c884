// Package controller reconciles SecurityGroupMembership, as the kubebuilder book shows it: get, finalizer, observe, act, status.
package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"security-group-operator.io/benches/textbook/api"
	"security-group-operator.io/benches/textbook/ecs"
)

const finalizer = "security-group-operator.io/membership"

// Reconciler keeps memberships.
type Reconciler struct {
	client.Client
	// Accounts by name.
	Accounts map[string]*ecs.Client
	// Period after which an object is looked at again, to find drift.
	Period time.Duration
}

// SetupWithManager registers the controller.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager, workers int) error {
	return ctrl.NewControllerManagedBy(mgr).
		For(&api.SecurityGroupMembership{}).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers}).
		Complete(r)
}

// Reconcile brings one membership to what its spec says.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var membership api.SecurityGroupMembership
	if err := r.Get(ctx, req.NamespacedName, &membership); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	account, ok := r.Accounts[membership.Spec.AccountRef.Name]
	if !ok {
		return ctrl.Result{}, r.report(ctx, &membership, nil, fmt.Errorf("no account %q", membership.Spec.AccountRef.Name))
	}
	if !membership.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, r.finalize(ctx, &membership, account)
	}
	if controllerutil.AddFinalizer(&membership, finalizer) {
		if err := r.Update(ctx, &membership); err != nil {
			return ctrl.Result{}, err
		}
	}
	instance, err := r.ensure(ctx, &membership, account)
	if reportErr := r.report(ctx, &membership, instance, err); reportErr != nil || err != nil {
		return ctrl.Result{}, errors.Join(err, reportErr)
	}
	return ctrl.Result{RequeueAfter: r.Period}, nil
}

// ensure joins the group unless the instance is in it.
func (r *Reconciler) ensure(ctx context.Context, membership *api.SecurityGroupMembership, account *ecs.Client) (*ecs.Instance, error) {
	spec := membership.Spec
	instance, err := account.DescribeInstance(ctx, spec.Region, spec.InstanceID)
	if err != nil {
		return nil, err
	}
	if instance == nil {
		return nil, fmt.Errorf("instance %s not found", spec.InstanceID)
	}
	if slices.Contains(instance.SecurityGroupIDs.SecurityGroupID, spec.SecurityGroupID) {
		return instance, nil
	}
	err = account.JoinSecurityGroup(ctx, spec.Region, spec.InstanceID, spec.SecurityGroupID)
	if ecs.HasCode(err, "InvalidInstanceId.AlreadyExists") {
		err = nil
	}
	return instance, err
}

// finalize leaves the group and lets the object go.
func (r *Reconciler) finalize(ctx context.Context, membership *api.SecurityGroupMembership, account *ecs.Client) error {
	if !controllerutil.ContainsFinalizer(membership, finalizer) {
		return nil
	}
	spec := membership.Spec
	err := account.LeaveSecurityGroup(ctx, spec.Region, spec.InstanceID, spec.SecurityGroupID)
	for _, done := range []string{"InvalidSecurityGroupAssociation.NotFound", "InvalidInstanceId.NotFound", "InvalidSecurityGroupId.NotFound"} {
		if ecs.HasCode(err, done) {
			err = nil
		}
	}
	if err != nil {
		return errors.Join(err, r.report(ctx, membership, nil, err))
	}
	controllerutil.RemoveFinalizer(membership, finalizer)
	return client.IgnoreNotFound(r.Update(ctx, membership))
}

// report writes the status if it differs.
func (r *Reconciler) report(ctx context.Context, membership *api.SecurityGroupMembership, instance *ecs.Instance, err error) error {
	before := membership.Status
	var status api.SecurityGroupMembershipStatus
	before.DeepCopyInto(&status)
	status.ObservedGeneration = membership.Generation
	ready := metav1.Condition{Type: "Ready", ObservedGeneration: membership.Generation,
		Status: metav1.ConditionTrue, Reason: "Joined",
		Message: fmt.Sprintf("%s is a member of %s", membership.Spec.InstanceID, membership.Spec.SecurityGroupID)}
	status.LastError = nil
	if err != nil {
		ready.Status, ready.Reason, ready.Message = metav1.ConditionFalse, "Failed", err.Error()
		var refusal *ecs.Error
		if errors.As(err, &refusal) {
			// Without the request id, which would make every status a new one.
			ready.Message = refusal.Code + ": " + refusal.Message
			status.LastError = &api.LastError{Action: "Reconcile", Code: refusal.Code, Class: "Transient", Time: metav1.Now().Rfc3339Copy(), Message: refusal.Message}
			if old := before.LastError; old != nil && old.Code == refusal.Code {
				status.LastError.Time = old.Time
			}
		}
	}
	if instance != nil {
		status.Target = &api.Target{State: instance.Status, VPCID: instance.VpcAttributes.VpcID}
	}
	meta.SetStatusCondition(&status.Conditions, ready)
	if equality.Semantic.DeepEqual(before, status) {
		return nil
	}
	membership.Status = status
	return client.IgnoreNotFound(r.Status().Update(ctx, membership))
}
