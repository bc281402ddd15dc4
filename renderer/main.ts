import './noEval.ts';
import './styles/base.css';
import { mount } from 'svelte';
import Root from './Root.svelte';
import { chooseTransport } from './transport/index.ts';

const target = document.getElementById('app');
if (!target) throw new Error('The page has no place for the app.');
mount(Root, { target, props: { transport: await chooseTransport() } });
