//! Node lists find their way.

use crate::bed::{Bed, TestNode, listens, run, settings, until};

/// What is changed at one node is soon known by all that are connected, in whichever direction.
#[test]
fn changes_are_pushed() {
    run(async {
        let bed = Bed::new();
        let (one, two, three) = bed.three();
        let _there = one.net.connect(two.id()).await.unwrap();
        let _back = three.net.connect(one.id()).await.unwrap();
        for n in 0..5 {
            one.cluster.add_node(&format!("n{n}").parse().unwrap(), &[]).unwrap();
            until("both have it", || two.agrees(&one) && three.agrees(&one)).await;
        }
        assert_eq!(two.cluster.list().list.nodes.len(), 8);
        assert_eq!((one.net.refusals(), two.net.refusals(), three.net.refusals()), (vec![], vec![], vec![]));
    });
}

/// From node to node, where no one is connected with all.
#[test]
fn changes_are_passed_on() {
    run(async {
        let bed = Bed::new();
        let (one, two, three) = bed.three();
        let four = bed.add(&one, "four");
        for node in [&two, &three] {
            node.cluster.adopt(&one.cluster.list().bytes).unwrap();
        }
        let _chain = (
            one.net.connect(two.id()).await.unwrap(),
            three.net.connect(two.id()).await.unwrap(),
            three.net.connect(four.id()).await.unwrap(),
        );
        one.cluster.add_node(&"five".parse().unwrap(), &[]).unwrap();
        until("the last one has it", || four.agrees(&one)).await;
        // And not around in circles.
        let _ring = four.net.connect(one.id()).await.unwrap();
        one.cluster.add_node(&"six".parse().unwrap(), &[]).unwrap();
        until("all have it", || [&two, &three, &four].iter().all(|n| n.agrees(&one))).await;
    });
}

/// A node that was away gets the list with its first connection, whoever dials.
#[test]
fn whoever_was_away_catches_up() {
    run(async {
        let bed = Bed::new();
        let (one, two) = bed.pair();
        one.cluster.add_node(&"a".parse().unwrap(), &[]).unwrap();
        one.net.connect(two.id()).await.unwrap().close();
        assert!(two.agrees(&one));
        one.cluster.add_node(&"b".parse().unwrap(), &[]).unwrap();
        two.net.connect(one.id()).await.unwrap();
        assert!(two.agrees(&one));
        // It is on disk, too.
        let list = one.cluster.list();
        assert_eq!(two.cluster.list(), list);
    });
}

/// A new node can speak to nodes that have not heard of it: it brings the list.
#[test]
fn a_new_node_introduces_itself() {
    run(async {
        let bed = Bed::new();
        let (one, two) = bed.pair();
        let bundle = one.cluster.add_node(&"three".parse().unwrap(), &[]).unwrap();
        let three = TestNode::start(bed.joined(&bundle), settings());
        assert!(two.cluster.list().list.node(three.id()).is_none());
        three.net.connect(two.id()).await.unwrap();
        assert!(two.agrees(&three));
        // Where it listens is known at one; two hears of it through three.
        listens(&one, &three);
        three.net.connect(one.id()).await.unwrap();
        until("two has it", || two.agrees(&one)).await;
        two.net.connect(three.id()).await.unwrap();
    });
}
