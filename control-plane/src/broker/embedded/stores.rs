//! What rmqtt leaves to plugins: retained messages in memory, and shared subscriptions.

use async_trait::async_trait;
use rmqtt::{
    Result,
    context::ServerContext,
    retain::{DefaultRetainStorage, RetainStorage},
    subscribe::SharedSubscription,
    types::{
        ClientId, Id, IsOnline, NodeId, Retain, SharedGroup, SubscriptionIdentifier, SubscriptionOptions,
        TopicFilter, TopicName,
    },
};
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

/// Sets both; without it they are no-ops.
pub(super) async fn install(context: &ServerContext) {
    *context.extends.retain_mut().await = Box::new(Retained(DefaultRetainStorage::new()));
    *context.extends.shared_subscription_mut().await = Box::new(Turns(AtomicUsize::new(0)));
}

/// rmqtt's own tree of messages, behind a trait implementation that uses it.
struct Retained(DefaultRetainStorage);

#[async_trait]
impl RetainStorage for Retained {
    fn enable(&self) -> bool {
        true
    }

    async fn set(&self, topic: &TopicName, retain: Retain, expiry: Option<Duration>) -> Result<()> {
        // Zero is "does not expire" in the listener's settings and "has expired" in the tree.
        self.0.set_with_timeout(topic, retain, expiry.filter(|expiry| !expiry.is_zero())).await
    }

    async fn get(&self, filter: &TopicFilter) -> Result<Vec<(TopicName, Retain)>> {
        self.0.get_message(filter).await
    }

    async fn count(&self) -> isize {
        self.0.count().await
    }

    async fn max(&self) -> isize {
        self.0.max().await
    }
}

/// Members of a group take turns; those that are online first.
struct Turns(AtomicUsize);

#[async_trait]
impl SharedSubscription for Turns {
    fn is_supported(&self) -> bool {
        true
    }

    async fn choice(
        &self,
        context: &ServerContext,
        _group: &SharedGroup,
        _publisher: &Id,
        _topic: &TopicName,
        members: &[(
            NodeId,
            ClientId,
            SubscriptionOptions,
            Option<Vec<SubscriptionIdentifier>>,
            Option<IsOnline>,
        )],
    ) -> Option<(usize, IsOnline)> {
        if members.is_empty() {
            return None;
        }
        let first = self.0.fetch_add(1, Ordering::Relaxed) % members.len();
        for step in 0..members.len() {
            let at = (first + step) % members.len();
            let (node, client, _, _, online) = &members[at];
            let online = match online {
                Some(online) => *online,
                None => context.extends.router().await.is_online(*node, client).await,
            };
            if online {
                return Some((at, true));
            }
        }
        Some((first, false))
    }
}
