//! What happens to the members of sets, and what that comes to. App thread.

use spdk::{Event, thread};

use crate::{
    assembly,
    close::close,
    growth, migrate,
    registry::{self, Fate, Lost},
    set::{Member, Tag},
    spareless,
};

/// Something has happened to a member; see [`crate::members::listen`].
pub fn on_event(tag: Tag, member: Member, bdev: &str, event: Event) {
    match event {
        Event::Remove => match registry::member_lost(tag, member, bdev) {
            Lost::Close => thread::spawn(lost(tag, member, bdev.to_owned())),
            Lost::NotInForce(device) => migrate::spare_lost(&device),
            Lost::Settled => {}
        },
        Event::Resize if member == Member::Base => thread::spawn(growth::follow(tag)),
        Event::Resize => thread::spawn(growth::note_spare(tag)),
        Event::Other => {}
    }
}

/// A set that is online has lost a member. Without its base there is nothing to serve, without its spare not all of it.
async fn lost(tag: Tag, member: Member, bdev: String) {
    if member == Member::Spare && spareless::go_on(tag, &bdev).await {
        return;
    }
    let Some(identity) = registry::with(|sets| sets.tagged(tag).map(|set| set.identity.clone())) else { return };
    let (name, member) = (&identity.name, member.parameter());
    match close(tag, Fate::Waiting, None).await {
        // Both members may go at once: the second finds the removal under way.
        None => {}
        Some(Ok(_)) => {
            log::warn!(
                "{name}: its {member} {bdev} is removed, and so it is removed too; what was remapped is safe on the spare"
            );
            assembly::await_return(&identity).await;
        }
        Some(Err(errno)) => log::error!("{name}: its {member} {bdev} is removed, but it could not be: {errno}"),
    }
}
