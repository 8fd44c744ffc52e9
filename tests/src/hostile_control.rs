//! Hostile bytes against the control socket's frames and messages (promise G29): seeds, and what is run on them.

use aspfs_tools::control::frame::{self, Kind};
use aspfs_tools::control::message::{At, Change, Hello, Id, Refusal, Request, Why};
use aspfs_tools::control::path::Path;
use aspfs_tools::control::versions::Which;
use vefs::ids::VeId;

/// Gives bytes to the decoders, as a stream of frames.
pub fn run(data: &[u8]) {
    aspfs_tools::control::hostile(data);
}

/// Conversations as they should be, one a request.
pub fn seeds() -> Vec<Vec<u8>> {
    let ve = Id(VeId(0x2a));
    let requests = [
        Request::Status {},
        Request::VeCreate {
            ve,
            templates: vec!["debian".into()],
            change: Change { quota: Some(1 << 30), ..Change::default() },
        },
        Request::VeDestroy { ve },
        Request::Mount {
            ve,
            version: Some(Which::Branch("b".into(), 7)),
            dir: "/srv".into(),
            source: Some("web".into()),
            flags: Default::default(),
        },
        Request::Cat { ve, path: Path::new(b"/etc/\xff"), at: Some(Which::At(At::Time(-1, 5))) },
        Request::Diff { ve, from: Some(Which::At(At::Txn(7))), to: Some(Which::Name("b".into())) },
        Request::HoldAdd { ve, name: "h".into(), at: Some(At::Txn(7)), onwards: true, owner: "o".into() },
        Request::TemplateImport { name: "t".into(), source: "/s".into() },
        Request::Stop { holder: true },
    ];
    let refusal = Refusal { kind: Why::Busy, message: "busy".into() };
    let of = |request: &Request| {
        [
            frame_of(Kind::Hello, &serde_json::to_vec(&Hello::ours()).expect("JSON")),
            frame_of(Kind::Request, &serde_json::to_vec(request).expect("JSON")),
            frame_of(Kind::Data, b"bytes"),
            frame_of(Kind::End, b""),
            frame_of(Kind::Refusal, &serde_json::to_vec(&refusal).expect("JSON")),
        ]
        .concat()
    };
    requests.iter().map(of).collect()
}

/// A frame.
pub fn frame_of(kind: Kind, body: &[u8]) -> Vec<u8> {
    [&frame::header(kind, body.len()).expect("within its bounds")[..], body].concat()
}
