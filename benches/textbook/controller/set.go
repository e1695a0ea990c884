package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"security-group-operator.io/benches/textbook/api"
)

// owner is the index of memberships by the name of their set.
const owner = ".metadata.controller"

// SetReconciler keeps one membership for each Node of a set, as the kubebuilder book shows it: list the owned objects, list what
// they are for, create what is missing, delete what is not wanted any more, write the status.
type SetReconciler struct {
	client.Client
}

// SetupWithManager registers the controller.
func (r *SetReconciler) SetupWithManager(mgr ctrl.Manager, workers int) error {
	ownerOf := func(object client.Object) []string {
		if reference := metav1.GetControllerOf(object); reference != nil && reference.Kind == "SecurityGroupMembershipSet" {
			return []string{reference.Name}
		}
		return nil
	}
	if err := mgr.GetFieldIndexer().IndexField(context.Background(), &api.SecurityGroupMembership{}, owner, ownerOf); err != nil {
		return err
	}
	return ctrl.NewControllerManagedBy(mgr).
		For(&api.SecurityGroupMembershipSet{}).
		Owns(&api.SecurityGroupMembership{}).
		Watches(&corev1.Node{}, handler.EnqueueRequestsFromMapFunc(r.setsOf),
			builder.WithPredicates(predicate.ResourceVersionChangedPredicate{})).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers}).
		Complete(r)
}

// setsOf is every set: each may select the Node.
func (r *SetReconciler) setsOf(ctx context.Context, _ client.Object) []reconcile.Request {
	var sets api.SecurityGroupMembershipSetList
	if err := r.List(ctx, &sets); err != nil {
		return nil
	}
	requests := make([]reconcile.Request, len(sets.Items))
	for i, set := range sets.Items {
		requests[i].NamespacedName = types.NamespacedName{Namespace: set.Namespace, Name: set.Name}
	}
	return requests
}

// Reconcile brings the memberships of one set to what its spec says.
func (r *SetReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var set api.SecurityGroupMembershipSet
	if err := r.Get(ctx, req.NamespacedName, &set); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !set.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, nil
	}
	wanted, err := r.wanted(ctx, &set)
	if err != nil {
		return ctrl.Result{}, err
	}
	var owned api.SecurityGroupMembershipList
	if err := r.List(ctx, &owned, client.InNamespace(set.Namespace), client.MatchingFields{owner: set.Name}); err != nil {
		return ctrl.Result{}, err
	}
	targets := int64(len(wanted))
	var ready int64
	var failed error
	for i := range owned.Items {
		membership := &owned.Items[i]
		if _, is := wanted[membership.Name]; is {
			delete(wanted, membership.Name)
			if meta.IsStatusConditionTrue(membership.Status.Conditions, "Ready") {
				ready++
			}
			continue
		}
		if membership.DeletionTimestamp.IsZero() {
			failed = errors.Join(failed, client.IgnoreNotFound(r.Delete(ctx, membership)))
		}
	}
	for _, membership := range wanted {
		if err := controllerutil.SetControllerReference(&set, membership, r.Scheme()); err != nil {
			return ctrl.Result{}, err
		}
		// The cache may lag behind the last pass.
		if err := r.Create(ctx, membership); err != nil && !apierrors.IsAlreadyExists(err) {
			failed = errors.Join(failed, err)
		}
	}
	return ctrl.Result{}, errors.Join(failed, r.report(ctx, &set, targets, ready, int64(len(owned.Items))))
}

// wanted is a membership for each Node that the selector matches.
func (r *SetReconciler) wanted(ctx context.Context, set *api.SecurityGroupMembershipSet) (map[string]*api.SecurityGroupMembership, error) {
	selector, err := metav1.LabelSelectorAsSelector(set.Spec.NodeSelector)
	if err != nil {
		return nil, err
	}
	var nodes corev1.NodeList
	if err := r.List(ctx, &nodes, client.MatchingLabelsSelector{Selector: selector}); err != nil {
		return nil, err
	}
	wanted := map[string]*api.SecurityGroupMembership{}
	for _, node := range nodes.Items {
		region, instance, ok := strings.Cut(node.Spec.ProviderID, ".")
		if !ok || region != set.Spec.Region {
			continue
		}
		name := fmt.Sprintf("%s-%s-%s", set.Name, instance, set.Spec.SecurityGroupID)
		wanted[name] = &api.SecurityGroupMembership{
			ObjectMeta: metav1.ObjectMeta{Namespace: set.Namespace, Name: name},
			Spec: api.SecurityGroupMembershipSpec{
				Region: region, InstanceID: instance, SecurityGroupID: set.Spec.SecurityGroupID, AccountRef: set.Spec.AccountRef,
			},
		}
	}
	return wanted, nil
}

// report writes the status if it differs.
func (r *SetReconciler) report(ctx context.Context, set *api.SecurityGroupMembershipSet, targets, ready, objects int64) error {
	var status api.SecurityGroupMembershipSetStatus
	set.Status.DeepCopyInto(&status)
	status.ObservedGeneration = set.Generation
	status.Targets, status.ReadyTargets, status.Objects = &targets, &ready, &objects
	condition := metav1.Condition{Type: "Ready", ObservedGeneration: set.Generation, Status: metav1.ConditionTrue,
		Reason: "AllMembers", Message: fmt.Sprintf("%d of %d targets are members", ready, targets)}
	if ready < targets {
		condition.Status, condition.Reason = metav1.ConditionFalse, "Joining"
	}
	meta.SetStatusCondition(&status.Conditions, condition)
	if equality.Semantic.DeepEqual(set.Status, status) {
		return nil
	}
	set.Status = status
	return client.IgnoreNotFound(r.Status().Update(ctx, set))
}
