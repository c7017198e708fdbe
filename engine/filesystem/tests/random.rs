//! Random sequences of operations: by the kernel and in user space they leave the same tree, and a
//! clean file system.

#![allow(clippy::as_conversions, clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod common;

use common::*;
use proptest::prelude::*;
use thinstore_filesystem::{
    DirectoryTree, Ext4Reader, Ext4Writer, Metadata, Node, Timestamp, TreePath, TreeWriter,
    tree_hash,
};
use thinstore_storage::ErrorKind;

/// One operation, over few names so that they meet.
#[derive(Clone, Debug)]
enum Operation {
    Put {
        at: TreePath,
        node: Node,
        metadata: Metadata,
        parts: Vec<(u64, u8, usize)>,
    },
    HardLink {
        at: TreePath,
        target: TreePath,
    },
    Remove(TreePath),
    Clear(TreePath),
    /// A new layer begins, and the routes change places.
    Layer,
}

fn paths() -> impl Strategy<Value = TreePath> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c", "lib", "usr"]), 1..4)
        .prop_map(|parts| path(&parts.join("/")))
}

fn nodes() -> impl Strategy<Value = (Node, Vec<(u64, u8, usize)>)> {
    let targets = vec!["a", "../b", "/usr", "usr/lib", "/", "nowhere", ".", "../../../c"];
    let file =
        prop::collection::vec((0u64..9000, 1u8..255, 1usize..20_000), 0..4).prop_map(|parts| {
            let mut at = 0;
            let mut placed = Vec::new();
            for (gap, fill, length) in parts {
                at += gap;
                placed.push((at, fill, length));
                at += length as u64;
            }
            (Node::File { size_bytes: at + 5 }, placed)
        });
    prop_oneof![
        4 => Just((Node::Directory, Vec::new())),
        6 => file,
        3 => prop::sample::select(targets)
            .prop_map(|target| (Node::Symlink { target: target.as_bytes().to_vec() }, Vec::new())),
        1 => (60usize..300).prop_map(|length| (Node::Symlink { target: vec![b'x'; length] }, Vec::new())),
        1 => (0u32..4096, 0u32..1 << 20)
            .prop_map(|(major, minor)| (Node::BlockDevice { major, minor }, Vec::new())),
        1 => Just((Node::Fifo, Vec::new())),
    ]
}

fn metadata_values() -> impl Strategy<Value = Metadata> {
    let xattr = (
        prop::sample::select(vec!["trusted.a", "trusted.bb", "security.c"]),
        prop::collection::vec(any::<u8>(), 0..600),
    );
    (
        0u32..0o10000,
        prop::sample::select(vec![0u32, 1000, 65_536, 4_294_967_294]),
        any::<u32>().prop_map(|gid| gid & 0x7fff_ffff),
        // Up to 2286: times from 2310 to 2378 are right, and e2fsck takes them for a mistake.
        -3_000_000_000i64..10_000_000_000,
        0u32..1_000_000_000,
        prop::collection::vec(xattr, 0..4),
    )
        .prop_map(|(mode, uid, gid, seconds, nanoseconds, xattrs)| Metadata {
            mode,
            uid,
            gid,
            modified: Timestamp { seconds, nanoseconds },
            xattrs: xattrs
                .into_iter()
                .map(|(name, value)| (name.as_bytes().to_vec(), value))
                .collect(),
        })
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let operation = prop_oneof![
        12 => (paths(), nodes(), metadata_values()).prop_map(|(at, (node, parts), metadata)| {
            Operation::Put { at, node, metadata, parts }
        }),
        3 => (paths(), paths()).prop_map(|(at, target)| Operation::HardLink { at, target }),
        2 => paths().prop_map(Operation::Remove),
        1 => paths().prop_map(Operation::Clear),
        1 => Just(Operation::Layer),
    ];
    prop::collection::vec(operation, 1..60)
}

/// Applies an operation; what is refused must be refused by both.
fn apply(tree: &mut dyn TreeWriter, operation: &Operation) -> Option<ErrorKind> {
    let result = match operation {
        Operation::Put { at, node, metadata, parts } => {
            let parts = parts.iter().map(|(at, fill, length)| (*at, vec![*fill; *length]));
            let mut content = Parts(parts.collect());
            let content = matches!(node, Node::File { .. }).then_some(&mut content);
            tree.put(at, node, metadata, content.map(|content| content as _))
        }
        Operation::HardLink { at, target } => tree.hard_link(at, target),
        Operation::Remove(at) => tree.remove(at),
        Operation::Clear(at) => tree.clear(at),
        Operation::Layer => Ok(()),
    };
    let error = result.err();
    let kind = error.as_ref().map(thinstore_storage::Error::kind);
    assert!(matches!(kind, None | Some(ErrorKind::Refused)), "{operation:?}: {error:?}");
    kind
}

/// Writes one layer to two file systems, to one by the kernel and to the other in user space.
fn write_layer(kernel: &Image, user: &Image, layer: &[Operation]) {
    {
        let mounted = kernel.mount();
        let mut tree = DirectoryTree::open(&mounted.point).expect("open");
        let mut writer = Ext4Writer::open(user.device()).expect("open");
        for operation in layer {
            let left = apply(&mut writer, operation);
            let right = apply(&mut tree, operation);
            assert_eq!(left, right, "{operation:?}");
        }
        tree.finish().expect("finish");
        writer.finish().expect("finish");
    }
    kernel.check();
    user.check();
}

/// With every layer the two file systems change places, so that each route goes on where the other
/// left off.
fn run_both(operations: &[Operation]) {
    let (mut one, mut other) = (Image::new(64 << 20), Image::new(64 << 20));
    for layer in operations.split(|operation| matches!(operation, Operation::Layer)) {
        write_layer(&one, &other, layer);
        let (left, right) = (one.device(), other.device());
        let left = Ext4Reader::open(left).expect("open");
        let right = Ext4Reader::open(right).expect("open");
        if tree_hash(&left).expect("hash") != tree_hash(&right).expect("hash") {
            assert_same_manifest(&manifest_of(&left), &manifest_of(&right), "after a layer");
            panic!("the hashes differ and the manifests do not");
        }
        std::mem::swap(&mut one, &mut other);
    }
    let mounted = one.mount();
    let tree = DirectoryTree::open(&mounted.point).expect("open");
    let reader = Ext4Reader::open(other.device()).expect("open");
    assert_same_manifest(&manifest_of(&tree), &manifest_of(&reader), "as the kernel reads it");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    #[ignore = "needs root: mounts a loop device"]
    fn any_sequence_of_operations_gives_the_same_tree_by_both_routes(operations in operations()) {
        run_both(&operations);
    }
}
