import os, sys, time, json, cProfile, pstats, io, itertools
from statistics import median
import numpy as np, torch
from dataclasses import replace
t00=time.perf_counter()
from benchmarks import pack_speed as ps
from benchmarks.comparators import seed_task
from mlops.hyperparameters import Hyperparameters, ACTIVATIONS
from mlops.nn import fused, graphs, passes, training, group, grouping
from mlops.nn.precision import applied
from mlops.nn.passes import Rows, Passes
from mlops.nn.mlp import PackedMLP
from mlops.nn.optimizer import PackedAdamW
torch.set_num_threads(1)
KERN=fused.kernels
sections=sys.argv[1].split(",")
def say(*a): print(*a, flush=True)
def fits(ms,data,prec="float32",n=4):
    ts=[ps.timed(lambda: ps.fit_pack(ms,data,"cuda",prec)) for _ in range(n+1)]
    return f"first {ts[0]:.3f} median {median(ts[1:]):.4f} of {[round(t,4) for t in ts[1:]]}"
def use(on): fused.kernels = KERN if on else (lambda device: None)
class Both:
    pass
t=time.perf_counter(); say("kernels", KERN("cuda"), f"{time.perf_counter()-t:.2f} s to compile and try")
narrow=seed_task.load_data()
wide=seed_task.load_data(8000,64,4)
def wide_members(K,e): return [Hyperparameters(hidden_dims=(256,256),batch_size=256,epochs=e,dropout=0.1+0.1*i/K) for i in range(K)]
if "bmm" in sections:
    def bench(f,n=30):
        for _ in range(3): f()
        s,e=torch.cuda.Event(True),torch.cuda.Event(True); torch.cuda.synchronize(); s.record()
        for _ in range(n): f()
        e.record(); e.synchronize(); return s.elapsed_time(e)/n*1e3
    with applied("float32",torch.device("cuda")):
        K,B=256,256
        X=torch.randn(K,B,264,device="cuda"); W=torch.randn(K,264,256,device="cuda"); Z=torch.randn(K,B,256,device="cuda"); dW=torch.empty(K,264,256,device="cuda")
        X0=torch.randn(1,B,72,device="cuda").expand(K,-1,-1); W0=torch.randn(K,72,256,device="cuda"); d0=torch.empty(K,72,256,device="cuda")
        G=torch.empty(K,B,256,device="cuda")
        for name,n in (("264",264),("256 of 264",256)):
            say("fwd",name,bench(lambda:torch.bmm(X[:,:,:n],W[:,:n],out=Z)), "wgrad",bench(lambda:torch.bmm(X[:,:,:n].transpose(1,2),Z,out=dW[:,:n])))
        for n in (72,64):
            say("layer0",n,"fwd",bench(lambda:torch.bmm(X0[:,:,:n],W0[:,:n],out=Z)),"wgrad",bench(lambda:torch.bmm(X0[:,:,:n].transpose(1,2),Z,out=d0[:,:n])))
        say("dgrad",bench(lambda:torch.bmm(Z,W[:,:256].transpose(1,2),out=G)))
        Wo=torch.randn(K,4,264,device="cuda"); U=torch.randn(K,B,4,device="cuda"); do=torch.empty_like(Wo); L=torch.empty(K,B,4,device="cuda")
        say("out fwd",bench(lambda:torch.bmm(X,Wo.transpose(1,2),out=L)),"wgrad",bench(lambda:torch.bmm(U.transpose(1,2),X,out=do)),"dgrad",bench(lambda:torch.bmm(U,Wo[:,:,:256],out=G)))
        # the shape swapped round: outputs [K, in, out] by Z^T
        Xc=torch.randn(K,B,256,device="cuda"); Wc=torch.randn(K,256,256,device="cuda")
        say("contiguous 256 fwd",bench(lambda:torch.bmm(Xc,Wc,out=Z)),"weights transposed",bench(lambda:torch.bmm(Xc,Wc.transpose(1,2),out=Z)),"wgrad",bench(lambda:torch.bmm(Xc.transpose(1,2),Z,out=Wc)),"wgrad to [out,in]",bench(lambda:torch.bmm(Z.transpose(1,2),Xc,out=Wc)))
        del X,W,Z,dW,X0,W0,G,Xc,Wc
if "narrow" in sections:
    for K in (256,1024,2048):
        ms=ps.narrow_members(K,20)
        for on,calls in ((1,1),(1,3),(0,1)):
            use(on); graphs.CALLS_BEFORE_CAPTURE=calls
            say("narrow",K,"kernels" if on else "calls","capture after",calls,fits(ms,narrow))
    use(1); graphs.CALLS_BEFORE_CAPTURE=1
if "prof" in sections:
    for K in (256,1024):
        ms=ps.narrow_members(K,20); ps.fit_pack(ms,narrow,"cuda","float32")
        pr=cProfile.Profile(); pr.enable(); ps.fit_pack(ms,narrow,"cuda","float32"); pr.disable()
        s=io.StringIO(); pstats.Stats(pr,stream=s).sort_stats("tottime").print_stats(22); say(f"profile {K}", "\n".join(l for l in s.getvalue().splitlines() if l.strip())[:3200])
def kernels_of(f,n=16):
    from torch.profiler import profile, ProfilerActivity
    f(); torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as p: f(); torch.cuda.synchronize()
    rows=sorted(((e.self_device_time_total,e.count,e.key) for e in p.key_averages()),reverse=True)
    say(f"  GPU busy {sum(r[0] for r in rows)/1e3:.1f} ms")
    for r in rows[:n]: say(f"  {r[0]/1e3:8.2f} ms {r[1]:6d} x {r[0]/r[1]:7.1f} us  {r[2][:90]}")
if "wide" in sections:
    for prec in ("float32","tf32","bf16"):
        prod=[ps.time_products(8,[(4096,)*3],"cuda",prec) for _ in range(3)]
        rate=2*8*4096**3/median(prod)/1e12
        for on in (1,0):
            use(on); es=[]
            for _ in range(3):
                a=ps.timed(lambda: ps.fit_pack(wide_members(256,10),wide,"cuda",prec)); b=ps.timed(lambda: ps.fit_pack(wide_members(256,2),wide,"cuda",prec)); es.append((a-b)/8)
            say("wide",prec,"kernels" if on else "calls",f"ms an epoch {[round(e*1e3,1) for e in es]} -> {609.348/median(es)/1e3:.1f} of {rate:.1f} TFLOP/s = {609.348/median(es)/1e3/rate:.1%}; 2 epochs {b:.3f} s")
    use(1)
if "kern" in sections:
    say("wide kernels, 6 epochs"); kernels_of(lambda: ps.fit_pack(wide_members(256,6),wide,"cuda","float32"),20)
    say("narrow 256 kernels, 20 epochs"); kernels_of(lambda: ps.fit_pack(ps.narrow_members(256,20),narrow,"cuda","float32"),20)
    say("narrow 1024 kernels, 20 epochs"); kernels_of(lambda: ps.fit_pack(ps.narrow_members(1024,20),narrow,"cuda","float32"),12)
if "mixed" in sections:
    data=seed_task.load_data(30000,20,2)
    shapes=[(32,),(64,),(128,),(256,),(64,32),(128,64),(256,128),(64,64,64)]
    ms=[Hyperparameters(hidden_dims=shapes[i%8],batch_size=(32,64,128)[(i//8)%3],activation=ACTIVATIONS[(i//24)%4],dropout=0.3*(i%7)/7,epochs=5) for i in range(256)]
    g=grouping.group_members(ms,20,2,"cuda"); say("mixed: groups of", [len(x) for x in g])
    base=(16,64,4)
    for at_once,steps,ahead in (base,(1,64,4),(4,64,4),(32,64,4),(16,16,4),(16,1024,4),(16,64,2),(16,64,16)):
        training.GROUPS_AT_ONCE["cuda"]=at_once; passes.STEPS_AT_ONCE["cuda"]=steps; graphs.PIECES_AHEAD=ahead
        say("mixed groups",at_once,"steps",steps,"ahead",ahead,fits(ms,data,n=2))
    training.GROUPS_AT_ONCE["cuda"],passes.STEPS_AT_ONCE["cuda"],graphs.PIECES_AHEAD=base
    nd=[replace(m,dropout=0.0) for m in ms]; say("mixed without dropout",fits(nd,data,n=2))
    say("mixed kernels"); kernels_of(lambda: ps.fit_pack(ms,data,"cuda","float32"),6)
    pr=cProfile.Profile(); pr.enable(); ps.fit_pack(ms,data,"cuda","float32"); pr.disable()
    s=io.StringIO(); pstats.Stats(pr,stream=s).sort_stats("tottime").print_stats(14); say("\n".join(l for l in s.getvalue().splitlines() if l.strip())[:2000])
if "costs" in sections:
    say("step times in a graph, us: K widths batch measured estimated")
    with torch.inference_mode(), applied("float32",torch.device("cuda")):
        for K,dims,B in [(4,(32,),32),(4,(32,32),32),(4,(32,)*3,32),(4,(32,)*4,32),(64,(64,64),32),(256,(64,64),32),(1024,(64,64),32),(64,(128,128),128),(256,(128,128),128),(256,(256,256),256),(64,(512,512),256),(16,(1024,1024),256),(1024,(16,),32),(1024,(128,),128)]:
            data=seed_task.load_data(8000,20,2)
            rows=Rows.on("cuda",*(a.numpy() for a in (data.x_train,data.y_train,data.x_val,data.y_val)),2)
            pack=PackedMLP([Hyperparameters(hidden_dims=dims,batch_size=B,dropout=.2)]*K,20,2,"cuda")
            lane=graphs.Lane(torch.device("cuda"))
            with lane.entered():
                pack.parameters.normal_(0,.05); pa=Passes(pack,rows,lane); op=PackedAdamW(pack)
                for e in (1,2):
                    for _ in pa.pieces(op,0,e): pass
                (n,b),(st,run)=max(pa._steps.items(), key=lambda kv: kv[0][1]*1e6+kv[0][0])
                torch.cuda.synchronize(); a=time.perf_counter()
                for _ in range(10): run()
                torch.cuda.synchronize(); us=(time.perf_counter()-a)/10/n*1e6
            say(f"  {K:5d} {str(dims):22s} {B:4d} {us:9.1f} {grouping.seconds_of_step((20,*dims,2),B,K,'cuda')*1e6:9.1f}")
            del pa,op,pack
say(f"total {time.perf_counter()-t00:.1f} s")
