//! The hooks: who connects, who reads what, who says what.
//!
//! rmqtt runs `MessagePublish` before `MessagePublishCheckAcl` and acknowledges after both, with the reason that
//! the second gives. A message is therefore taken in by the second: it has passed the check, it is kept before the
//! PUBACK, and when it cannot be kept the device learns so. A last will passes `MessagePublish` alone; its topic
//! was checked when the device connected.
//!
//! Whoever revokes a device ends its session, but one that is just being made is not there yet to be ended. Therefore
//! the certificate is looked up once more after the session has been made: either that look sees the revocation, or
//! the revocation sees the session.

use super::{Ingest, Refused, quoted};
use async_trait::async_trait;
use rmqtt::{
    codec::v5::{PublishAckReason, SubscribeAckReason},
    context::ServerContext,
    hook::{Handler, HookResult, Parameter, ReturnType, Type},
    session::Session,
    types::{
        AuthResult, ConnectInfo, FromType, LastWill, Publish, PublishAclResult, PublishResult, Subscribe,
        SubscribeAclResult,
    },
};
use shared::{
    DeviceId,
    topic::{Topic, device_may_subscribe},
};
use std::sync::Arc;

/// Registers and starts the hooks.
pub(super) async fn install(context: &ServerContext, ingest: Arc<dyn Ingest>) {
    let register = context.extends.hook_mgr().register();
    for kind in [
        Type::ClientAuthenticate,
        Type::ClientConnected,
        Type::ClientSubscribeCheckAcl,
        Type::MessagePublishCheckAcl,
        Type::MessagePublish,
        Type::MessageAcked,
        Type::MessageDropped,
    ] {
        let hooks = Hooks { ingest: Arc::clone(&ingest), context: context.clone() };
        register.add(kind, Box::new(hooks)).await;
    }
    register.start().await;
}

struct Hooks {
    ingest: Arc<dyn Ingest>,
    context: ServerContext,
}

/// Why a device is not let in.
enum Denied {
    /// A kind of refusal, for the record.
    For(&'static str, String),
    /// Its certificate cannot be looked up at this moment.
    Undecided,
}

impl From<(&'static str, String)> for Denied {
    fn from((kind, detail): (&'static str, String)) -> Self {
        Self::For(kind, detail)
    }
}

#[async_trait]
impl Handler for Hooks {
    async fn hook(&self, parameter: &Parameter, before: Option<HookResult>) -> ReturnType {
        match parameter {
            Parameter::ClientAuthenticate(info) => {
                let verdict = match self.authenticate(info).await {
                    Ok(()) => AuthResult::Allow(false, None),
                    Err(Denied::For(kind, detail)) => {
                        self.ingest.refused(info.client_id(), kind, detail).await;
                        AuthResult::NotAuthorized
                    }
                    // It comes again.
                    Err(Denied::Undecided) => AuthResult::NotAuthorized,
                };
                (false, Some(HookResult::AuthResult(verdict)))
            }
            Parameter::ClientConnected(session) => {
                self.check_again(session).await;
                (true, before)
            }
            Parameter::ClientSubscribeCheckAcl(session, subscribe) => {
                (false, Some(HookResult::SubscribeAclResult(self.subscribe(session, subscribe).await)))
            }
            Parameter::MessagePublishCheckAcl(session, publish) => {
                (false, Some(HookResult::PublishAclResult(self.publish(session, publish).await)))
            }
            Parameter::MessagePublish(Some(session), origin, publish)
                if matches!(origin.typ(), FromType::LastWill) =>
            {
                // Nobody waits for an answer to a last will; what is wrong with it has been noted.
                let _ = self.take(&session.id.client_id, publish).await;
                (true, before)
            }
            Parameter::MessageAcked(session, _, publish) => {
                self.settle(&session.id.client_id, publish);
                (true, before)
            }
            Parameter::MessageDropped(Some(to), _, publish, _) => {
                self.settle(&to.client_id, publish);
                (true, before)
            }
            _ => (true, before),
        }
    }
}

impl Hooks {
    /// Of chunks it is told what became of them.
    fn settle(&self, client: &str, publish: &Publish) {
        let topic = publish.topic.parse::<Topic>().ok();
        let topic =
            topic.filter(|topic| matches!(topic, Topic::BlobChunk { .. } | Topic::BlobBroadcast { .. }));
        if let (Some(topic), Ok(device)) = (topic, client.parse::<DeviceId>()) {
            self.ingest.settled(&device, &topic);
        }
    }

    async fn authenticate(&self, info: &ConnectInfo) -> Result<(), Denied> {
        let certificate = info.cert().ok_or(("no_certificate", "no client certificate".to_owned()))?;
        let name = certificate
            .common_name
            .as_deref()
            .ok_or(("no_common_name", "the certificate names no device".to_owned()))?;
        let client: &str = info.client_id();
        if client != name {
            let detail = format!("the certificate is that of {}", quoted(name));
            return Err(Denied::For("foreign_client_id", detail));
        }
        let device: DeviceId = name.parse().map_err(|error| ("bad_name", format!("{error}")))?;
        let will = info.last_will().map(|will| match will {
            LastWill::V3(will) => will.topic.to_string(),
            LastWill::V5(will) => will.topic.to_string(),
        });
        if let Some(topic) = will
            && topic != Topic::Presence(device.clone()).to_string()
        {
            let detail = format!("the last will goes to {}", quoted(&topic));
            return Err(Denied::For("foreign_will", detail));
        }
        let serial = certificate.serial.as_deref().unwrap_or_default();
        match self.ingest.admit(&device, serial).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                let detail = format!("serial {} is unknown or revoked", quoted(serial));
                Err(Denied::For("unknown_certificate", detail))
            }
            Err(_) => Err(Denied::Undecided),
        }
    }

    async fn check_again(&self, session: &Session) {
        let verdict = match session.connect_info().await {
            Ok(info) => self.authenticate(&info).await,
            Err(error) => {
                Err(Denied::For("no_certificate", format!("the connection is not known: {error:#}")))
            }
        };
        if let Err(denied) = verdict {
            let client = session.id.client_id.to_string();
            if let Denied::For(kind, detail) = denied {
                self.ingest.refused(&client, kind, detail).await;
            }
            // The session takes the kick when it runs, which is after this hook.
            let context = self.context.clone();
            tokio::spawn(async move { super::kick(&context, &client).await });
        }
    }

    async fn subscribe(&self, session: &Session, subscribe: &Subscribe) -> SubscribeAclResult {
        let client: &str = &session.id.client_id;
        let allowed = client.parse().is_ok_and(|device: DeviceId| {
            !subscribe.opts.has_shared_group() && device_may_subscribe(&device, &subscribe.topic_filter)
        });
        if allowed {
            return SubscribeAclResult::new_success(subscribe.opts.qos(), None);
        }
        self.ingest.refused(client, "foreign_subscription", quoted(&subscribe.topic_filter)).await;
        SubscribeAclResult::new_failure(SubscribeAckReason::NotAuthorized)
    }

    async fn publish(&self, session: &Session, publish: &Publish) -> PublishAclResult {
        let reason = match self.take(&session.id.client_id, publish).await {
            Ok(()) => return PublishAclResult::allow(),
            Err(reason) => reason,
        };
        // Version 3.1.1 has no negative acknowledgement: what has to come again must not be acknowledged at all.
        let version_5 = session.connect_info().await.is_ok_and(|info| matches!(*info, ConnectInfo::V5(..)));
        let disconnect = reason == PublishAckReason::ImplementationSpecificError && !version_5;
        PublishAclResult(PublishResult::reason_code(reason, None, disconnect))
    }

    async fn take(&self, client: &str, publish: &Publish) -> Result<(), PublishAckReason> {
        let parsed = client.parse::<DeviceId>().ok().zip(publish.topic.parse::<Topic>().ok());
        let Some((device, topic)) = parsed.filter(|(device, topic)| topic.device_may_publish(device)) else {
            self.ingest.refused(client, "foreign_topic", quoted(&publish.topic)).await;
            return Err(PublishAckReason::NotAuthorized);
        };
        match self.ingest.receive(&device, &topic, publish.payload.clone()).await {
            Ok(()) => Ok(()),
            Err(Refused::Invalid(reason)) => {
                self.ingest.refused(client, "bad_payload", format!("{topic}: {reason}")).await;
                Err(PublishAckReason::PayloadFormatInvalid)
            }
            Err(Refused::Unavailable) => Err(PublishAckReason::ImplementationSpecificError),
        }
    }
}
